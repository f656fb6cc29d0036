"""Holds that nobody will settle: what they took from the shared counters is given back."""
