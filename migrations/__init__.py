"""Database schema history (Alembic), the same on SQLite and PostgreSQL."""
