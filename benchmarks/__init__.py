"""Load and speed; each figure beside its floor, from the same run."""
