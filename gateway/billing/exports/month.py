"""The month that is exported, cut into slices that are short to query; late usage of closed months is a slice of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

LABEL = re.compile(r"(\d{4})-(\d{2})")


@dataclass(frozen=True, slots=True)
class BillingMonth:
    """One calendar month in UTC: [start, end)."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> BillingMonth:
        """`2026-11`. Raises ValueError for anything else."""
        match = LABEL.fullmatch(text)
        year, month = (int(part) for part in match.groups()) if match else (0, 0)
        if not (2000 <= year <= 9998 and 1 <= month <= 12):
            raise ValueError(f"{text!r} is not a month; write for example 2026-11")
        start = datetime(year, month, 1, tzinfo=UTC)
        return cls(start, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))

    @property
    def label(self) -> str:
        """As it is written: `2026-11`."""
        return f"{self.start:%Y-%m}"


@dataclass(frozen=True, slots=True)
class Closing:
    """When the month before and this month were closed; None while open. Months are closed in order.

    Usage that reaches the ledger after its month was closed belongs to the first month that is still open then, as a
    correction. So a closed month's export never changes.
    """

    previous: datetime | None = None
    this: datetime | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Requests started in [since, until) and posted to the ledger in (posted_after, posted_until]; None is no bound.

    `late` marks usage of earlier months that had been closed when it was posted.
    """

    since: datetime | None
    until: datetime
    posted_after: datetime | None
    posted_until: datetime | None
    late: bool


def slices(month: BillingMonth, closing: Closing) -> Iterator[Slice]:
    """Everything that belongs to the month: late usage first, then day by day. Each request is in one slice of one month."""
    if closing.previous is not None:
        yield Slice(None, month.start, closing.previous, closing.this, late=True)
    day = month.start
    while day < month.end:
        yield Slice(day, day + timedelta(days=1), None, closing.this, late=False)
        day += timedelta(days=1)


def at_midnight(day: date) -> datetime:
    """The first moment of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
