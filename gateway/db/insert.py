"""Many rows in one statement, in the way that is quick on each database: the deliverer lives on this.

PostgreSQL gets rows that cannot conflict by COPY (`copy.py`), others as one JSON document (one round trip, one parse); SQLite
gets prepared tuples. Types are those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Column, ColumnElement, Connection, Table, any_, bindparam, cast, column, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import JSON

from gateway.db.copy import without_nul

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


def insert_new(
    connection: Connection, table: Table, rows: list[Row], key: Column[str], wanted: Column[Any]
) -> dict[str, Any]:
    """Insert rows whose unique `key` does not exist yet; their `wanted` column by key. The others are left alone."""
    if not rows:
        return {}
    if connection.dialect.name != "sqlite":
        statement = _insert(connection, table, list(rows[0])).on_conflict_do_nothing(index_elements=[key])
        return dict(connection.execute(statement.returning(key, wanted), {"document": _document(rows)}).all())
    # SQLite has one writer, so nobody comes between these.
    given = [row[key.name] for row in rows]
    known = set(connection.scalars(select(key).where(among(connection, key, given))))
    missing = [row for row in rows if row[key.name] not in known]
    insert_rows(connection, table, missing)
    found = connection.execute(select(key, wanted).where(among(connection, key, [row[key.name] for row in missing])))
    return dict(found.all())


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


def update_rows(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Change rows that exist, found by their primary key of one column, to the values given."""
    if not rows:
        return
    [key] = table.primary_key
    names = [name for name in rows[0] if name != key.name]
    if connection.dialect.name == "sqlite":
        statement = update(table).where(key == bindparam("_key"))
        statement = statement.values({name: bindparam(name) for name in names})
        _execute(connection, statement, table, [{**row, "_key": row[key.name]} for row in rows], {"_key": key})
        return
    given = _given(table, list(rows[0]))
    statement = update(table).where(key == given.c[key.name]).values({name: given.c[name] for name in names})
    connection.execute(statement, {"document": _document(rows)})


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
    return postgresql.insert(table).from_select(names, select(*_given(table, names).c))


def _given(table: Table, names: list[str]) -> Any:
    """The rows of the parameter `document` as a table."""
    columns = [column(name, table.c[name].type) for name in names]
    document = cast(bindparam("document", type_=postgresql.TEXT), JSON)
    return func.json_to_recordset(document).table_valued(*columns, name="given").render_derived(with_types=True)


def _execute(
    connection: Connection,
    statement: Any,
    table: Table,
    rows: list[Row],
    others: Mapping[str, Column[Any]] | None = None,
) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(statement, {"document": _document(rows)})
        return
    compiled = statement.compile(dialect=connection.dialect)
    known = {**{column.name: column for column in table.c}, **(others or {})}
    readers = [_reader(connection, known, name, compiled.params) for name in compiled.positiontup]
    connection.exec_driver_sql(str(compiled), [tuple([read(row) for read in readers]) for row in rows])


def _reader(
    connection: Connection, known: Mapping[str, Column[Any]], name: str, constants: Mapping[str, Any]
) -> Callable[[Row], Any]:
    """Takes one parameter out of a row, converted as SQLAlchemy would; parameters that are no column are constant."""
    if name not in known:
        return lambda row: constants[name]
    convert = known[name].type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    if convert is None:
        return itemgetter(name)
    return lambda row: convert(row[name])


def _document(rows: list[Row]) -> str:
    document = orjson.dumps(rows, _json_value, orjson.OPT_NON_STR_KEYS)
    if b"\\u0000" in document:
        # PostgreSQL has no NUL in text, and clients may send one.
        document = orjson.dumps(without_nul(orjson.loads(document)))
    return document.decode()


def _json_value(value: object) -> str:
    """Bytes as PostgreSQL reads them from text; anything else that JSON does not know as its description."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else repr(value)
