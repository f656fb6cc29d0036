"""Policies while the gateway runs: those of the configuration, and what people put in the place of their keys."""
