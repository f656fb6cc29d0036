"""Bring a database to the schema of this code, or refuse it: all steps in one transaction, nothing half-migrated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import StartupError, Unavailable

_LOCK = 0x70656E73  # an advisory lock in PostgreSQL, so that two gateways starting together migrate once
_PATIENCE_SECONDS = 60.0
"""How long a process waits for another one that is just migrating the same SQLite file."""


def migrate(database: Database) -> None:
    """Upgrade to the newest schema; does nothing when it is there already.

    Raises StartupError when the database was made by a newer version, Unavailable when it does not answer.
    """
    gives_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return _migrate(database)
        except Unavailable as error:
            if not (database.is_sqlite and "locked" in error.message) or time.monotonic() > gives_up_at:
                raise


def _migrate(database: Database) -> None:
    with transaction(database) as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _refuse_newer(connection, database)
        config = _alembic()
        config.attributes["connection"] = connection
        with _without_deadline(connection):
            command.upgrade(config, "head")


@contextmanager
def _without_deadline(connection: Connection) -> Iterator[None]:
    """A step that moves a large table may take longer than any other statement may."""
    if connection.dialect.name == "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    patience = getattr(driver, "patience", None)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    try:
        driver.patience = None  # type: ignore[union-attr]
        yield
    finally:
        driver.patience = patience  # type: ignore[union-attr]


def check_schema(database: Database) -> None:
    """Raises StartupError unless the database has exactly the schema of this code."""
    with snapshot(database) as connection:
        found = _refuse_newer(connection, database)
    wanted = set(ScriptDirectory.from_config(_alembic()).get_heads())
    if found != wanted:
        raise StartupError(f"the database {database.url} has an older schema or none. Run `penstock migrate` first.")


def _refuse_newer(connection: Connection, database: Database) -> set[str]:
    found = set(MigrationContext.configure(connection).get_current_heads())
    known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if unknown := found - known:
        raise StartupError(
            f"the database {database.url} has schema {', '.join(sorted(unknown))!r}, which this version does not know: "
            "it was made by a newer Penstock. Upgrade Penstock, or set DATABASE_URL to another database."
        )
    return found


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config
