"""Requests one by one: pages of them, and one in full."""
