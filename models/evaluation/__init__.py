"""Evaluation: how good the probabilities are that a server would have given."""
