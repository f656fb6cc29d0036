"""Labels: how good answers were, as told by clients, by comparisons with another tier, and by people."""
