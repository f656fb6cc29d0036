"""Money: prices, cost, budgets with holds, the ledger."""
