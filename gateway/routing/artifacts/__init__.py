"""The router's artifacts in SQL: kept, assigned to policies, changed with a reason."""
