"""The door: all HTTP, no rules."""
