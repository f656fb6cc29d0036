"""The SQL of the price book: what is valid when, and the one way to write it: in a transaction that overlaps roll back.

All functions raise Unavailable when the database does not answer; writing raises PriceRefused and then changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, or_, select, update

from gateway.billing.prices.change import place
from gateway.billing.prices.choose import Key, Price
from gateway.db.connect import Database
from gateway.db.insert import insert_rows
from gateway.db.price_tables import DIMENSIONS, prices
from gateway.db.transaction import snapshot, transaction
from gateway.money import UNITS_PER_PRICE
from gateway.types import Book

_LOCK = 0x70726963  # one writer of prices at a time in PostgreSQL; SQLite has one writer anyway


FURTHEST = timedelta(days=3660)
"""A price that begins later than ten years from now is a year typed wrong."""


class PriceRefused(ValueError):
    """A change that the book does not take; nothing of its transaction was written."""


def prices_of(database: Database, models: Iterable[str], since: datetime) -> list[Price]:
    """Rows of these models that are valid at or after a moment, scheduled ones too."""
    query = select(prices).where(prices.c.model.in_(sorted(set(models))), _ends_after(since), _in_force())
    with snapshot(database) as connection:
        return [_price(row) for row in connection.execute(query).mappings()]


def prices_at(database: Database, at: datetime, *, book: Book | None = None, like: str | None = None) -> list[Price]:
    """Rows that are valid at a moment, by model; `like` is a part of the model's name."""
    order = [prices.c[name] for name in ("model", "owner", "book", "service_tier", "least_tokens", "region", "meter")]
    query = select(prices).where(prices.c.valid_from <= at, _ends_after(at)).order_by(*order)
    if book is not None:
        query = query.where(prices.c.book == book)
    if like is not None:
        query = query.where(prices.c.model.contains(like, autoescape=True))
    with snapshot(database) as connection:
        return [_price(row) for row in connection.execute(query).mappings()]


def prices_since(database: Database, since: datetime) -> list[Price]:
    """Every row that is valid at or after a moment."""
    query = select(prices).where(_ends_after(since), _in_force()).order_by(prices.c.id)
    with snapshot(database) as connection:
        return [_price(row) for row in connection.execute(query).mappings()]


def owners_of(database: Database, model: str) -> list[str]:
    """The providers that the book has a price of this model from, at any time."""
    query = select(prices.c.owner).where(prices.c.model == model, prices.c.book == "provider").distinct()
    with snapshot(database) as connection:
        return sorted(connection.execute(query).scalars())


def model_names(database: Database) -> list[str]:
    """Every model that the provider book has ever had a price of."""
    with snapshot(database) as connection:
        query = select(prices.c.model).where(prices.c.book == "provider").distinct()
        return sorted(connection.execute(query).scalars())


def write_prices(database: Database, added: Sequence[Price], ended: Sequence[Price], now: datetime) -> int:
    """Add prices, each ending the row that is valid when it begins, and end others now. Returns the rows added.

    Raises PriceRefused for a price that would begin in the past or in ten years, or if any two rows overlapped afterwards.
    """
    for price in added:
        if price.valid_from < now:
            raise PriceRefused(
                f"a price of {price.model!r} from {price.valid_from.isoformat()} on is refused: what has been billed "
                "keeps its price. Let it begin now or later"
            )
        if price.valid_from > now + FURTHEST:
            raise PriceRefused(
                f"a price of {price.model!r} from {price.valid_from.isoformat()} on is refused: it would begin more than ten "
                "years from now. Check the year"
            )
    with transaction(database) as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        rows, ends = _placed(connection, added)
        ends += [{"row": price.id, "end": now} for price in ended]
        if ends:
            change = update(prices).where(prices.c.id == bindparam("row"), _ends_after(bindparam("end")))
            connection.execute(change.values(valid_to=bindparam("end")), ends)
        insert_rows(connection, prices, [{**row, "created_at": now} for row in rows])
        if found := overlapping(connection):
            raise PriceRefused(f"two prices would be valid at once: {found[0]}")
    return len(rows)


def overlapping(connection: Connection) -> list[str]:
    """Pairs of rows with the same dimensions that are valid at the same moment; there must be none."""
    one, other = prices.alias("one"), prices.alias("other")
    query = (
        select(one, other.c.id.label("other_id"))
        .join(other, and_(one.c.id < other.c.id, *(one.c[name] == other.c[name] for name in DIMENSIONS)))
        .where(
            or_(other.c.valid_to.is_(None), other.c.valid_to > other.c.valid_from),
            or_(one.c.valid_to.is_(None), one.c.valid_to > one.c.valid_from),
            or_(other.c.valid_to.is_(None), one.c.valid_from < other.c.valid_to),
            or_(one.c.valid_to.is_(None), other.c.valid_from < one.c.valid_to),
        )
    )
    return [
        f"{row['book']} price of {row['model']!r} by {row['owner']!r}, {row['meter']}: rows {row['id']} and {row['other_id']}"
        for row in connection.execute(query).mappings()
    ]


def find_overlapping(database: Database) -> list[str]:
    """The same in one state of the database, for `prices check`."""
    with snapshot(database) as connection:
        return overlapping(connection)


def odd_rows(database: Database) -> list[RowMapping]:
    """Rows that this code would never write: another currency or unit."""
    query = select(prices).where(or_(prices.c.currency != "USD", prices.c.unit != UNITS_PER_PRICE))
    with snapshot(database) as connection:
        return list(connection.execute(query).mappings())


def _placed(connection: Connection, added: Sequence[Price]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The new rows with their ends, and which rows end when. One key may get several prices in one call, oldest first."""
    known: dict[Key, list[Price]] = defaultdict(list)
    models = sorted({price.model for price in added})
    # PostgreSQL and SQLite take tens of thousands of parameters, maps of prices have thousands of models.
    for start in range(0, len(models), 5000):
        query = select(prices).where(prices.c.model.in_(models[start : start + 5000]), _in_force())
        for row in connection.execute(query).mappings():
            price = _price(row)
            known[price.key].append(price)
    rows, ends = [], []
    seen: set[Key] = set()
    for price in added:
        if price.key in seen:
            raise PriceRefused(f"two prices of {price.model!r} for {price.meter} in one change; write them one by one")
        seen.add(price.key)
        placement = place(known[price.key], price.valid_from)
        ends += [{"row": row, "end": end} for row, end in placement.ends]
        rows.append(_row(price, placement.valid_to))
    return rows, ends


def _row(price: Price, valid_to: datetime | None) -> dict[str, Any]:
    return {
        **dict(zip(DIMENSIONS, price.key, strict=True)),
        "unit": UNITS_PER_PRICE,
        "rate": price.rate,
        "currency": "USD",
        "valid_from": price.valid_from,
        "valid_to": valid_to,
        "source": price.source,
        "source_hash": price.source_hash,
    }


def _price(row: RowMapping) -> Price:
    names = (*DIMENSIONS, "rate", "valid_from", "valid_to", "source", "source_hash", "id")
    return Price(**{name: row[name] for name in names})


def _ends_after(at: Any) -> ColumnElement[bool]:
    return or_(prices.c.valid_to.is_(None), prices.c.valid_to > at)


def _in_force() -> ColumnElement[bool]:
    return or_(prices.c.valid_to.is_(None), prices.c.valid_to > prices.c.valid_from)
