"""Answers of shadow requests: kept, listed for people to judge, and forgotten."""
