"""Penstock's gateway: checks, routes, buys, meters and bills LLM requests."""

__version__ = "0.1.0"
