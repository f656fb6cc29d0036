"""Requests of past months that are removed by rule, and what of them is kept for ever."""
