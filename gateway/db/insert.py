"""Many rows at once, in the way that is fast on each database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, insert
from sqlalchemy.dialects import postgresql, sqlite


def insert_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows that do not exist yet; every row names the same columns."""
    if rows:
        connection.execute(insert(table), rows)


def insert_missing(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows and leave those alone whose key exists already."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def insert_or_update(
    connection: Connection,
    table: Table,
    rows: list[dict[str, Any]],
    changes: tuple[str, ...],
    only_if: Callable[[Any], ColumnElement[bool]] | None = None,
) -> None:
    """Insert rows; where the primary key exists, take over the columns `changes` (if `only_if` of the new row holds)."""
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: statement.excluded[name] for name in changes},
        where=only_if(statement.excluded) if only_if is not None else None,
    )
    connection.execute(statement, rows)
