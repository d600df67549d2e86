"""The service: answers in, probability and knowledge state out."""

__version__ = "0.1.0"
