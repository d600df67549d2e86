"""Who remembers learners."""
