"""The service: answers in, probability and knowledge state out."""
