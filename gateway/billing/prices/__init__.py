"""The price book: what every model costs at its provider and what tenants with a fixed price pay, at any moment."""
