"""Columns of an export and what their cells look like in CSV and Parquet. Amounts are decimals from integers, never floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

Cell = str | int | bool | Decimal | datetime | None
Row = tuple[Cell, ...]
Kind = Literal["text", "integer", "boolean", "decimal", "moment"]

COST_SCALE = 18
"""Decimals of a cost: 12 of a price times 6 of a quantity in millions, so that every product is kept whole."""
PRICE_SCALE = 16
OTHER_SCALE = 14
PRECISION = 38

FORMULA_STARTS = frozenset("=+-@\t\r")
"""Spreadsheets run text that begins so. Clients choose session names and model names, so CSV puts an apostrophe before it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A name and the kind of its cells; `scale` is the number of decimals in Parquet (decimal128 with 38 digits)."""

    name: str
    kind: Kind = "text"
    scale: int = OTHER_SCALE


def decimal(units: int, places: int) -> Decimal:
    """units x 10^-places, exact whatever the number of digits: (15, 1) is 1.5."""
    return Decimal(f"{units}E-{places}")


def decimal_text(value: Decimal) -> str:
    """Plain digits with at least one decimal, because readers take a column without any for integers: 1000 is `1000.0`."""
    text = f"{value:f}"
    if "." not in text:
        return f"{text}.0"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def moment_text(value: datetime) -> str:
    """ISO 8601 in UTC with a Z, microseconds only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def csv_writers(columns: Sequence[Column]) -> list[tuple[int, Callable[[Any], str]]]:
    """Places of the cells that CSV needs in another form, and how they are written; integers and nothing stay as they are."""
    return [(place, _WRITERS[column.kind]) for place, column in enumerate(columns) if column.kind in _WRITERS]


def _text(text: str) -> str:
    return f"'{text}" if text[:1] in FORMULA_STARTS else text


_WRITERS: dict[Kind, Callable[[Any], str]] = {
    "text": _text,
    "boolean": lambda value: "true" if value else "false",
    "decimal": decimal_text,
    "moment": moment_text,
}
