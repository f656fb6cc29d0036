"""Sending what is in the outbox: signed webhooks and mail, again and again until it is taken or given up."""
