"""Artifact folders -> numbers."""
