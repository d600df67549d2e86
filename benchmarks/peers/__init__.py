"""Other servers of the same model, each as its own documentation has it, beside ktserve."""
