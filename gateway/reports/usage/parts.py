"""Cuts a period into whole days, whole hours and what is left, so that most of it is read from roll-ups (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Part:
    """Requests started in [since, until); None is no bound."""

    source: Literal["rows", "hours", "days"]
    since: datetime | None
    until: datetime | None


def parts(since: datetime | None, until: datetime | None, *, hourly: bool) -> list[Part]:
    """Pieces that touch, do not overlap and cover the period; `hourly` when hours must be told apart."""
    pieces: list[Part] = []
    first, last = _up(since, HOUR), _down(until, HOUR)
    if first is not None and last is not None and first >= last:
        return [Part("rows", since, until)]
    if since != first:
        pieces.append(Part("rows", since, first))
    pieces += [Part("hours", first, last)] if hourly else _whole(first, last)
    if until != last:
        pieces.append(Part("rows", last, until))
    return pieces


def _whole(since: datetime | None, until: datetime | None) -> list[Part]:
    first, last = _up(since, DAY), _down(until, DAY)
    if first is not None and last is not None and first >= last:
        return [Part("hours", since, until)]
    pieces = [Part("hours", since, first)] if since != first else []
    pieces.append(Part("days", first, last))
    return [*pieces, Part("hours", last, until)] if until != last else pieces


def _down(moment: datetime | None, unit: timedelta) -> datetime | None:
    if moment is None:
        return None
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return start + (moment - start) // unit * unit


def _up(moment: datetime | None, unit: timedelta) -> datetime | None:
    down = _down(moment, unit)
    return down if down is None or down == moment else down + unit
