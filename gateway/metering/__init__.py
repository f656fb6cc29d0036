"""Counting: usage in disjoint buckets, the durable spool, delivery to SQL."""
