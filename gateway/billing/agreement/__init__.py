"""Whether invoices, credits and reconciliations agree with usage and ledger; asked by `penstock ledger verify`."""
