"""From an artifact folder to numbers: providers, sessions, proof, batches."""
