"""A provider's bill as CSV: a mapping says which column is what. Every line is read exactly or the file is refused.

The mapping is a few options or a small YAML: `columns` (field: header), `meters` (word on the bill: meter of ours),
`unit_price_per`, `quantity_times`, `currency`, `delimiter`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import (
    OTHER,
    BillLine,
    UnreadableBill,
    amount_of,
    check_currency,
    check_month,
    quantity_of,
    rate_of,
)
from gateway.billing.reconcile.pages import File
from gateway.money import UNITS_PER_PRICE
from gateway.types import METERS

FIELDS = (
    "date", "model", "meter", "quantity", "unit_price", "amount", "currency", "service_tier", "request_id", "account",
    "description",
)  # fmt: skip
REQUIRED = ("date", "amount")

WORDS: dict[str, str] = {
    **{str(meter): str(meter) for meter in METERS}, OTHER: OTHER,
    "input tokens": "input", "prompt": "input", "prompt tokens": "input", "uncached input": "input",
    "cached input": "cache_read", "cached": "cache_read", "cache read": "cache_read", "cached input tokens": "cache_read",
    "cache write": "cache_write_5m", "cache write 5m": "cache_write_5m", "cache write 1h": "cache_write_1h",
    "output tokens": "output", "completion": "output", "completion tokens": "output",
    "reasoning tokens": "reasoning", "thinking": "reasoning",
}  # fmt: skip
"""What bills call a meter, in lower case with spaces."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which column is what. Fields that are not named stand under their own name, if at all."""

    columns: dict[str, str] = field(default_factory=dict)
    meters: dict[str, str] = field(default_factory=dict)
    unit_price_per: int = UNITS_PER_PRICE
    quantity_times: int = 1
    currency: str | None = None
    delimiter: str = ","

    @classmethod
    def parse(cls, document: object) -> Mapping:
        """Read the YAML's content. Raises UnreadableBill for unknown keys, fields and meters."""
        if not isinstance(document, dict):
            raise UnreadableBill("the mapping is not a table of keys; see docs/reconciliation.md")
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(set(map(str, document)) - known):
            raise UnreadableBill(f"the mapping has the unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
        made = cls(**{str(name): value for name, value in document.items()})
        for name in made.columns:
            if name not in FIELDS:
                raise UnreadableBill(f"the mapping names the field {name!r}; known: {', '.join(FIELDS)}")
        for meter in made.meters.values():
            if meter not in (*METERS, OTHER):
                raise UnreadableBill(f"the mapping names the meter {meter!r}; known: {', '.join((*METERS, OTHER))}")
        for name in ("unit_price_per", "quantity_times"):
            if type(getattr(made, name)) is not int or getattr(made, name) < 1:
                raise UnreadableBill(f"the mapping's {name} is {getattr(made, name)!r}; write a whole number from 1 on")
        if len(made.delimiter) != 1:
            raise UnreadableBill(f"the mapping's delimiter is {made.delimiter!r}; write one character")
        return made

    def header(self, name: str) -> str:
        """The column of a field."""
        return self.columns.get(name, name)


def csv_lines(file: File, mapping: Mapping, month: Month, zone: ZoneInfo) -> Iterator[BillLine]:
    """The lines of a CSV file."""
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableBill(f"{file.name}: not UTF-8; save it as CSV in UTF-8") from None
    rows = csv.DictReader(io.StringIO(text), delimiter=mapping.delimiter, strict=True)
    headers = rows.fieldnames or []
    for name in FIELDS:
        if mapping.header(name) not in headers and (name in REQUIRED or name in mapping.columns):
            raise UnreadableBill(
                f"{file.name}: no column {mapping.header(name)!r} for the {name}; it has {', '.join(headers) or 'none'}. "
                f"Name it with --column {name}=HEADER."
            )
        if (count := headers.count(mapping.header(name))) > 1:
            raise UnreadableBill(
                f"{file.name}: the column {mapping.header(name)!r} is there {count} times, so it is not clear which is the "
                f"{name}. Rename or remove all but one."
            )
    if mapping.currency is None and mapping.header("currency") not in headers:
        raise UnreadableBill(
            f"{file.name}: no column says the currency; say --currency USD if the whole file is in USD"
        )
    try:
        for row in rows:
            where = f"{file.name}, line {rows.line_num}"
            if None in row or None in row.values():
                raise UnreadableBill(f"{where}: not as many fields as the header has; is the file cut off?")
            yield _line(
                {name: row.get(mapping.header(name), "").strip() for name in FIELDS}, mapping, month, zone, where
            )
    except csv.Error as error:
        raise UnreadableBill(f"{file.name}, line {rows.line_num + 1}: {error}") from None


def _line(row: dict[str, str], mapping: Mapping, month: Month, zone: ZoneInfo, where: str) -> BillLine:
    check_currency(mapping.currency if mapping.currency is not None else row["currency"], where)
    day = _day(row["date"], zone, where)
    check_month(day, month, where)
    meter = _meter(row["meter"], mapping, where)
    countable = meter != OTHER and row["quantity"]
    stated: dict[str, Any] = {
        "quantity": quantity_of(row["quantity"], where, times=mapping.quantity_times) if countable else None,
        "rate": rate_of(row["unit_price"], where, per=mapping.unit_price_per)
        if countable and row["unit_price"]
        else None,
    }
    return BillLine(
        position=0,
        day=day,
        model=row["model"] or None,
        meter=meter,
        amount=amount_of(row["amount"], where),
        tier=row["service_tier"].lower().replace("standard", "default") or None,
        account=row["account"] or None,
        request_id=row["request_id"] or None,
        description=row["description"],
        **stated,
    )


def _meter(word: str, mapping: Mapping, where: str) -> str:
    if word in mapping.meters:
        return mapping.meters[word]
    known = WORDS.get(word.lower()) or WORDS.get(word.lower().replace("_", " ").strip())
    if known is None and word:
        raise UnreadableBill(
            f"{where}: {word!r} is not a meter. Say what it is in the mapping, `meters: {{{word!r}: input}}`; what Penstock "
            "does not count is `other`."
        )
    return known or OTHER


def _day(text: str, zone: ZoneInfo, where: str) -> date:
    """A date, or the day of a moment in the bill's zone."""
    try:
        if len(text) == len("2026-09-01"):
            return date.fromisoformat(text)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableBill(f"{where}: the date is {text!r}; dates are written as 2026-09-01") from None
    return (found if found.tzinfo is None else found.astimezone(zone)).date()
