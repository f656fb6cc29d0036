"""Alerts: budgets that are nearly used up for their tenants, and what the operator should look at."""
