"""The database: tables, connection, the one place that commits."""
