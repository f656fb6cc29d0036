"""Rows that cannot conflict, in the quickest way there is: COPY in PostgreSQL, prepared tuples in SQLite.

Values are converted by the type of their column. Errors are those that SQLAlchemy raises for any other statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Table, bindparam
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import JSON, Boolean, Float, LargeBinary, Text

from gateway.db.tables import UtcDateTime

Values = Sequence[Any]
_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_rows(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Values]) -> None:
    """Add rows, each with the values of the columns `names` in their order."""
    if not rows:
        return
    columns = [table.c[name] for name in names]
    if connection.dialect.name == "sqlite":
        places: list[tuple[int, Callable[[Any], Any]]] = []
        for place, column in enumerate(columns):
            if convert := column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect):
                places.append((place, convert))
        statement = sqlite.insert(table).values({name: bindparam(name) for name in names})
        compiled = statement.compile(dialect=connection.dialect)
        assert compiled.positiontup is not None
        order = itemgetter(*(names.index(name) for name in compiled.positiontup))
        connection.exec_driver_sql(str(compiled), [order(_converted(row, places)) for row in rows])
        return
    line = "\t".join("%r" if type(column.type) is Float and not column.nullable else "%s" for column in columns)
    places = [(place, write) for place, column in enumerate(columns) if (write := _writer(column)) is not None]
    payload = "".join([line % _converted(row, places) + "\n" for row in rows])
    if "\0" in payload:
        # PostgreSQL has no NUL in text, and clients may send one.
        payload = payload.replace("\0", "\ufffd")
    _copy(connection, f"COPY {table.name} ({', '.join(names)}) FROM STDIN", payload.encode())


def _copy(connection: Connection, statement: str, payload: bytes) -> None:
    from psycopg import Error

    driver = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[union-attr]
            copy.write(payload)
    except Error as error:
        gone = bool(getattr(driver, "closed", False))
        raised = DBAPIError.instance(
            statement, None, error, Error, hide_parameters=True, connection_invalidated=gone, dialect=connection.dialect
        )
        if gone:
            connection.invalidate(error)
        raise raised from error


def _converted(row: Values, places: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    values = list(row)
    for place, convert in places:
        values[place] = convert(values[place])
    return tuple(values)


class _Memo(dict[Any, str]):
    """What was written for a value once: names and moments are repeated in most rows."""

    def __init__(self, write: Callable[[Any], str]) -> None:
        super().__init__({None: "\\N"})
        self._write = write

    def __missing__(self, value: Any) -> str:
        text = self[value] = self._write(value)
        return text


def _writer(column: Column[Any]) -> Callable[[Any], Any] | None:
    """How a value of a column is written; None for numbers that are always there, which need nothing."""
    kind = type(column.type)
    if kind is Text:
        return _Memo(lambda value: value.translate(_SPECIAL)).__getitem__
    if kind is UtcDateTime:
        return _Memo(datetime.isoformat).__getitem__
    if kind is Boolean:
        return {None: "\\N", True: "t", False: "f"}.__getitem__
    if kind is JSON:
        return _json
    if kind is LargeBinary:
        return _bytes
    return _number if column.nullable else None


def _number(value: float | None) -> str:
    return "\\N" if value is None else repr(value)


def _bytes(value: bytes | None) -> str:
    return "\\N" if value is None else "\\\\x" + value.hex()


def _json(value: object) -> str:
    if value is None:
        return "\\N"
    # JSON has no raw tabs and line ends, so only its backslashes are special here.
    text = orjson.dumps(value, repr, orjson.OPT_NON_STR_KEYS).decode()
    if "\\" not in text:
        return text
    if "\\u0000" in text:
        text = orjson.dumps(without_nul(orjson.loads(text))).decode()
    return text.replace("\\", "\\\\")


def without_nul(value: Any) -> Any:
    """A JSON value with its NUL characters replaced, as PostgreSQL refuses them."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return value
