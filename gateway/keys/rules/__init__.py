"""Budgets and limits that people change while the gateway runs, and what every owner may take with them."""
