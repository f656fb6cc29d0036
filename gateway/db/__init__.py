"""The database: tables, connection, the one place that commits."""

from gateway.db import invoice_tables as invoice_tables  # every table is in the metadata, whoever asks first
