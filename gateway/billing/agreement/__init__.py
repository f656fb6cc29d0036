"""Whether invoices, credits and credit notes agree with usage and ledger; asked by `penstock ledger verify`."""
