"""Alembic's entry: runs on the connection and inside the transaction that gateway.db.migrate hands over."""

from alembic import context

from gateway.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
