"""Tokens and money of a period, grouped."""
