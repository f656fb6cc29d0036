"""Many rows in one statement, in the way that is quick on each database: the deliverer lives on this.

PostgreSQL gets rows that cannot conflict by COPY (`copy.py`), others as one JSON document (one round trip, one parse); SQLite
gets prepared tuples. Types are those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Table, any_, bindparam, cast, column, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import JSON

Row = dict[str, Any]
Condition = Callable[[Any], ColumnElement[bool]]


def insert_rows(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert rows that do not exist yet; every row names the same columns."""
    if rows:
        _execute(connection, _insert(connection, table, list(rows[0])), table, rows)


def insert_missing(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert rows and leave those alone whose key exists already."""
    if rows:
        statement = _insert(connection, table, list(rows[0])).on_conflict_do_nothing()
        _execute(connection, statement, table, rows)


def insert_or_update(
    connection: Connection,
    table: Table,
    rows: list[Row],
    changes: tuple[str, ...],
    only_if: Condition | None = None,
) -> None:
    """Insert rows; where the primary key exists, take over the columns `changes` (if `only_if` of the new row holds)."""
    if not rows:
        return
    statement = _insert(connection, table, list(rows[0]))
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: statement.excluded[name] for name in changes},
        where=only_if(statement.excluded) if only_if is not None else None,
    )
    _execute(connection, statement, table, rows)


def insert_or_add(connection: Connection, table: Table, rows: list[Row], names: Sequence[str]) -> None:
    """Insert rows; where the primary key exists, add the columns `names` to what is there. Rows are locked in their order."""
    if not rows:
        return
    statement = _insert(connection, table, list(rows[0]))
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: table.c[name] + statement.excluded[name] for name in names},
    )
    _execute(connection, statement, table, rows)


def among(connection: Connection, column: ColumnElement[str], values: Sequence[str]) -> ColumnElement[bool]:
    """Whether a text column has one of these values, which travel as one parameter, however many they are."""
    if connection.dialect.name == "sqlite":
        given = func.json_each(orjson.dumps(list(values)).decode()).table_valued("value")
        return column.in_(select(given.c.value))
    return column == any_(bindparam(None, list(values), type_=postgresql.ARRAY(postgresql.TEXT)))


def _insert(connection: Connection, table: Table, names: list[str]) -> Any:
    """An INSERT of these columns that can be told what to do about a conflict."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).values({name: bindparam(name) for name in names})
    columns = [column(name, table.c[name].type) for name in names]
    document = cast(bindparam("document", type_=postgresql.TEXT), JSON)
    given = func.json_to_recordset(document).table_valued(*columns, name="given").render_derived(with_types=True)
    return postgresql.insert(table).from_select(names, select(*given.c))


def _execute(connection: Connection, statement: Any, table: Table, rows: list[Row]) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(statement, {"document": _document(rows)})
        return
    compiled = statement.compile(dialect=connection.dialect)
    readers = [_reader(connection, table, name, compiled.params) for name in compiled.positiontup]
    connection.exec_driver_sql(str(compiled), [tuple([read(row) for read in readers]) for row in rows])


def _reader(connection: Connection, table: Table, name: str, constants: Mapping[str, Any]) -> Callable[[Row], Any]:
    """Takes one parameter out of a row, converted as SQLAlchemy would; parameters that are no column are constant."""
    if name not in table.c:
        return lambda row: constants[name]
    convert = table.c[name].type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    if convert is None:
        return itemgetter(name)
    return lambda row: convert(row[name])


def _document(rows: list[Row]) -> str:
    document = orjson.dumps(rows, _json_value, orjson.OPT_NON_STR_KEYS)
    if b"\\u0000" in document:
        # PostgreSQL has no NUL in text, and clients may send one.
        document = orjson.dumps(_without_nul(orjson.loads(document)))
    return document.decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value


def _json_value(value: object) -> str:
    """Bytes as PostgreSQL reads them from text; anything else that JSON does not know as its description."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else repr(value)
