"""Requests of the past with what was remembered of their routing."""
