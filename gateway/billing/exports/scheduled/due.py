"""Which periods of a scheduled export are due (pure). A period is a month `2026-11` or a day `2026-11-30`, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.billing.periods.month import Month
from gateway.config_exports import ScheduledExport

MOST_AT_ONCE = 31
"""Periods that are caught up on after an absence; older ones can be run by hand."""


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A month, or one day of it."""

    month: Month
    day: date | None = None

    @classmethod
    def parse(cls, text: str, kind: str) -> Period:
        """Read what `str` gives. Raises ValueError for anything else, and for a day where months are exported."""
        if kind == "month":
            return cls(Month.parse(text))
        try:
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"{text!r} is not a day; write for example 2026-11-30") from None
        return cls(Month.of(day), day.date())

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return (
            self.month.start if self.day is None else datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        )

    @property
    def next(self) -> Period:
        """The one after it."""
        if self.day is None:
            return Period(self.month.next)
        day = self.day + timedelta(days=1)
        return Period(Month(day.year, day.month), day)

    def __str__(self) -> str:
        return str(self.month) if self.day is None else self.day.isoformat()


def due_at(entry: ScheduledExport, period: Period) -> datetime:
    """When a period is to be exported: after its end, at the time that the entry names."""
    day, hour, minute = entry.due
    return period.next.start + timedelta(days=day - 1, hours=hour, minutes=minute)


def last_due(entry: ScheduledExport, now: datetime) -> Period:
    """The youngest period that is due."""
    today = Period(Month.of(now), now.astimezone(UTC).date() if entry.period == "day" else None)
    period = _before(_before(_before(today)))
    while due_at(entry, period.next) <= now:
        period = period.next
    return period


def periods_due(entry: ScheduledExport, known: Period | None, now: datetime) -> list[Period]:
    """Periods that are due and younger than the youngest that is known; without one only the last. Oldest first."""
    last = last_due(entry, now)
    if known is None:
        return [last]
    found = []
    while known < last:
        known = known.next
        found.append(known)
    return found[-MOST_AT_ONCE:]


def _before(period: Period) -> Period:
    day = period.start - timedelta(days=1)
    return Period(Month.of(day), day.date() if period.day is not None else None)
