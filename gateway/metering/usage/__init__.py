"""Usage reports: one file per convention says what its counts include; all of them end in the same disjoint buckets."""
