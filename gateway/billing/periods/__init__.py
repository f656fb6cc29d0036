"""Billing periods: calendar months in UTC per tenant, open, closing, closed; what comes late is billed in the next one."""
