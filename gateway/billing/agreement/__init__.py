"""Whether invoices, credits, credit notes and reconciliations agree with usage and ledger; asked by `penstock ledger verify`."""
