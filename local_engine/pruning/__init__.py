"""Offline: whole layers are left out of a model, and what is left may learn from what it was."""
