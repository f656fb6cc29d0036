"""Shared counters: in memory for one process, in Redis for several."""
