"""Invoices: drafted from rated usage, numbered without gaps when a period closes, voided or credited by new rows only."""
