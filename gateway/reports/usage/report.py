"""How much was used between two moments, by group: from the roll-ups where they know, from the rows at the ragged ends.

Sums are over stored integers, so both ways give the same answer. Raises Unavailable when the database does not answer. SQLite
refuses (loudly) a sum of rows beyond 9.2 million USD; PostgreSQL and roll-ups have no such end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.energy import Energy
from gateway.money import format_usd
from gateway.reports.usage import queries
from gateway.reports.usage.parts import Part, parts
from gateway.reports.usage.queries import GROUPS
from gateway.types import Usage, usage_fields

_BUCKETS = usage_fields()


class UsageRow(NamedTuple):
    """Tokens and money of one group. `groups` has one text (or None) per name of the report's `group_by`.

    A tuple, as a month has ten thousand rows and tuples are made fastest.
    """

    groups: tuple[str | None, ...]
    requests: int
    estimated: bool
    buckets: tuple[int, ...]
    """In the order of usage_fields()."""
    cost_pico: int
    charge_pico: int
    energy: Energy | None = None
    """Of those calls whose engine told; None when none did."""

    @property
    def usage(self) -> Usage:
        """The buckets by name."""
        return Usage(**dict(zip(_BUCKETS, self.buckets, strict=True)), estimated=self.estimated)

    def as_dict(self, group_by: Sequence[str] = ()) -> dict[str, Any]:
        """For JSON: groups, requests, every bucket and the totals, amounts in pico-USD and as decimal USD."""
        usage = self.usage
        return {
            **dict(zip(group_by, self.groups, strict=False)),
            "requests": self.requests,
            "input_tokens": usage.input_total,
            "output_tokens": usage.output_total,
            "reasoning_tokens": usage.reasoning,
            "buckets": dict(zip(_BUCKETS, self.buckets, strict=True)),
            "cost_pico": self.cost_pico,
            "charge_pico": self.charge_pico,
            "cost_usd": format_usd(self.cost_pico),
            "charge_usd": format_usd(self.charge_pico),
            "energy_joules": self.energy.joules_text if self.energy is not None else None,
            "co2e_grams": self.energy.grams_text if self.energy is not None else None,
            "energy_estimated": self.energy.estimated if self.energy is not None else None,
        }


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage between two moments. A request answered by two models counts once in each model's row, one with two tags in
    each tag's, and once in the total.
    """

    since: datetime | None
    until: datetime | None
    group_by: tuple[str, ...]
    rows: tuple[UsageRow, ...]
    total: UsageRow

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "since": _plain(self.since),
            "until": _plain(self.until),
            "group_by": list(self.group_by),
            "rows": [row.as_dict(self.group_by) for row in self.rows],
            "total": self.total.as_dict(),
        }


def usage_report(
    database: Database,
    since: datetime | None,
    until: datetime | None,
    group_by: Sequence[str],
    tenant: str | None = None,
) -> UsageReport:
    """Sum the requests (of a tenant) started in [since, until), grouped by any of GROUPS; moments without a zone are UTC.

    Grouping by model or provider looks at attempts, so a failed attempt is found where it was billed; by tag, what has none
    is in a group of None. Raises ValueError for an unknown group, and for a question about requests that retention has removed.
    """
    for name in group_by:
        if name not in GROUPS:
            raise ValueError(f"{name!r} is not a group; known groups: {', '.join(GROUPS)}")
    since, until = _utc(since), _utc(until)
    if queries.in_rollups(group_by):
        return sum_up(database, since, until, group_by, parts(since, until, hourly="hour" in group_by), tenant)
    return sum_up(database, since, until, group_by, [Part("rows", since, until)], tenant)


def sum_up(
    database: Database,
    since: datetime | None,
    until: datetime | None,
    group_by: Sequence[str],
    pieces: Sequence[Part],
    tenant: str | None = None,
) -> UsageReport:
    """The report of a period that is cut into pieces, each read where it says."""
    rows: dict[tuple[str | None, ...], list[int]] = {}
    total: list[int] = [0] * len(queries.SUMS)
    with snapshot(database) as connection:
        for piece in pieces:
            if piece.source == "rows" and (gone := queries.removed_month(connection, piece.since, piece.until)):
                raise ValueError(
                    f"the requests of {gone} have been removed by retention, their sums by hour and day are kept: "
                    "ask for whole hours, and not by session, user, tag or requested model"
                )
            found, everything = queries.sums_and_total(connection, piece, group_by, tenant)
            for groups, numbers in found:
                known = rows.setdefault(groups, numbers)
                if known is not numbers:
                    _add(known, numbers)
            _add(total, everything)
    shown = [_row(groups, rows[groups]) for groups in sorted(rows, key=_text) if any(rows[groups])]
    return UsageReport(since, until, tuple(group_by), tuple(shown), _row((), total))


def _add(known: list[int], numbers: Sequence[int]) -> None:
    for place, number in enumerate(numbers):
        known[place] += number


def _text(groups: tuple[str | None, ...]) -> str:
    """What a row is sorted by: each group's text, what has none first. One text is compared faster than a list of them."""
    return "\0".join(groups if None not in groups else [text or "" for text in groups])  # type: ignore[arg-type]


def _row(groups: tuple[str | None, ...], numbers: Sequence[int]) -> UsageRow:
    calls, estimates, microjoules, nanograms = numbers[-6:-2]
    energy = Energy(microjoules, nanograms, estimates > 0) if calls else None
    return UsageRow(groups, numbers[0], numbers[1] > 0, tuple(numbers[2:-6]), numbers[-2], numbers[-1], energy)


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _plain(value: datetime | None) -> str | None:
    return value.isoformat() if value is not None else None
