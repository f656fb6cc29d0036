"""Credits: grants of money to a tenant, drawn when its periods are invoiced; what nobody drew in time is breakage."""
