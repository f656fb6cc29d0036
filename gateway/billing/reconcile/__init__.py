"""Reconciliation: a provider's bill is read, compared with our book of the same usage, explained, accepted and signed off."""
