"""The only place that commits. A database out of reach, locked or too slow raises Unavailable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.db.connect import Database
from gateway.errors import Unavailable


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """Read and write; commits when the block ends, rolls back when it raises.

    SQLite takes its write lock at the start, so that two writers wait for each other instead of failing half-way.
    Raises Unavailable for connection failures, locks and timeouts; errors of the data itself stay what they are.
    """
    with _open(database, "BEGIN IMMEDIATE", read_only=False) as connection:
        yield connection


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """Read only: every query in the block sees the same state. Raises Unavailable as `transaction` does."""
    with _open(database, "BEGIN", read_only=True) as connection:
        yield connection


@contextmanager
def _open(database: Database, sqlite_begin: str, *, read_only: bool) -> Iterator[Connection]:
    try:
        with database.engine.connect() as connection:
            if read_only and not database.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin() as running:
                if database.is_sqlite:
                    connection.exec_driver_sql(sqlite_begin)
                yield connection
                if read_only:
                    running.rollback()
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise Unavailable(f"the database {database.url} cannot be used: {_reason(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(f"the database {database.url} closed the connection: {_reason(error)}") from error
        raise


def _reason(error: Exception) -> str:
    """The driver's own first line; SQLAlchemy would add the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
