"""The month that is exported, cut into slices that are short to query; late usage of closed months has slices of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.billing.periods.month import Month


@dataclass(frozen=True, slots=True)
class Slice:
    """Requests started in [since, until). `late_into` None: those billed in their own month, which are nearly all.

    Else only those that came after their month was closed and are billed in the month `late_into`
    (docs/decisions/0005-late-usage.md).
    """

    since: datetime
    until: datetime
    late_into: Month | None = None

    @property
    def late(self) -> bool:
        """Whether its usage is a correction of an earlier month."""
        return self.late_into is not None

    @property
    def booking_day(self) -> date:
        """The day of the exported month on which its usage is booked."""
        return (self.late_into.start if self.late_into else self.since).date()


def slices(month: Month, late: Sequence[Month], day: date | None = None) -> Iterator[Slice]:
    """Everything that is billed in a month: late usage of each earlier month, then day by day. `day` alone: only that day.

    Each request is in one slice of one month, the same in which its invoice has it.
    """
    if day is not None:
        yield Slice(at_midnight(day), at_midnight(day + timedelta(days=1)))
        return
    for earlier in late:
        yield Slice(earlier.start, earlier.end, month)
    start = month.start
    while start < month.end:
        yield Slice(start, start + timedelta(days=1))
        start += timedelta(days=1)


def at_midnight(day: date) -> datetime:
    """The first moment of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
