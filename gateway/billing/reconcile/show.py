"""Runs as they are read and shown: findings with their state, totals by class, and the requests behind a finding."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import Connection

from gateway.billing.periods.month import Month
from gateway.billing.reconcile import queries
from gateway.billing.reconcile.desk import HARMLESS, KINDS, Kind
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import UnknownDocument
from gateway.money import format_usd

FindingState = Literal["settled", "open", "accepted", "disputed"]
"""settled: nothing to decide; open: somebody must; accepted: posted to the ledger; disputed: known, and not paid."""


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of a run. Amounts are pico-USD; `variance_pico` is what the bill asks beyond our book."""

    number: int
    kind: Kind
    state: FindingState
    first_day: date
    last_day: date
    model: str | None
    meter: str
    tier: str
    bill_quantity: int | None
    book_quantity: int | None
    bill_pico: int
    book_pico: int
    variance_pico: int
    why: str
    fingerprint: str
    bill_lines: tuple[int, ...]
    cells: tuple[tuple[str, ...], ...]
    decided_by: str | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return {
            "number": self.number,
            "class": self.kind,
            "state": self.state,
            "first_day": self.first_day.isoformat(),
            "last_day": self.last_day.isoformat(),
            "model": self.model,
            "meter": self.meter,
            "tier": self.tier,
            "bill_quantity": self.bill_quantity,
            "book_quantity": self.book_quantity,
            "bill_usd": format_usd(self.bill_pico),
            "book_usd": format_usd(self.book_pico),
            "variance_usd": format_usd(self.variance_pico),
            "why": self.why,
            "decided_by": self.decided_by,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison of a bill with our book, with what has been decided about it since."""

    id: str
    bill_id: str
    provider: str
    month: Month
    run_at: datetime
    run_by: str
    rounding_pico: int
    tolerance_pico: int
    bill_pico: int
    book_pico: int
    findings: tuple[Found, ...]

    def total(self, *states: FindingState) -> int:
        """The variance of all findings in these states, pico-USD."""
        return sum(each.variance_pico for each in self.findings if each.state in states)

    @property
    def open_pico(self) -> int:
        """What nobody has decided about, each variance by its size, so that two errors do not hide each other."""
        return sum(abs(each.variance_pico) for each in self.findings if each.state == "open")

    def by_kind(self) -> list[dict[str, Any]]:
        """Number of findings and variance of each class that occurs."""
        groups = [(kind, [each for each in self.findings if each.kind == kind]) for kind in KINDS]
        return [
            {
                "class": kind,
                "findings": len(found),
                "open": sum(each.state == "open" for each in found),
                "variance_usd": format_usd(sum(each.variance_pico for each in found)),
            }
            for kind, found in groups
            if found
        ]

    def summary(self) -> dict[str, Any]:
        """For lists: everything but the findings."""
        return {
            "id": self.id,
            "bill_id": self.bill_id,
            "provider": self.provider,
            "period": str(self.month),
            "run_at": self.run_at.isoformat(),
            "run_by": self.run_by,
            "rounding_tolerance_usd": format_usd(self.rounding_pico),
            "variance_tolerance_usd": format_usd(self.tolerance_pico),
            "bill_usd": format_usd(self.bill_pico),
            "book_usd": format_usd(self.book_pico),
            "variance_usd": format_usd(self.bill_pico - self.book_pico),
            "accepted_usd": format_usd(self.total("accepted")),
            "disputed_usd": format_usd(self.total("disputed")),
            "open_usd": format_usd(self.open_pico),
            "classes": self.by_kind(),
        }

    def as_dict(self, kind: Kind | None = None) -> dict[str, Any]:
        """For JSON: agreed findings are counted and not listed, unless they are asked for."""
        shown = [each for each in self.findings if each.kind == kind or (kind is None and each.kind != "agreed")]
        return {**self.summary(), "findings": [each.as_dict() for each in shown]}

    def as_csv(self) -> str:
        """Every variance as a line of CSV."""
        shown = [each.as_dict() for each in self.findings if each.kind != "agreed"]
        out = io.StringIO()
        names = list(shown[0]) if shown else ["number", "class", "state", "variance_usd", "why"]
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{name: _harmless(value) for name, value in row.items()} for row in shown])
        return out.getvalue()


def load_run(connection: Connection, run_id: str) -> Run:
    """One run. Raises UnknownDocument."""
    found = queries.find_runs(connection, run_id)
    if not found:
        raise UnknownDocument(f"no reconciliation has the id {run_id!r}; `penstock reconcile show` lists them.")
    row, month = found[0], Month.parse(found[0]["period"])
    decided = {each["fingerprint"]: each for each in queries.standing_acceptances(connection, row["provider"], month)}
    return Run(
        **{name: row[name] for name in ("id", "bill_id", "provider", "run_at", "run_by", "rounding_pico")},
        **{name: row[name] for name in ("tolerance_pico", "bill_pico", "book_pico")},
        month=month,
        findings=tuple(
            _found(each, decided.get(each["fingerprint"])) for each in queries.findings_of(connection, run_id)
        ),
    )


def read_run(database: Database, run_id: str) -> Run:
    """One run with the state of its findings. Raises UnknownDocument."""
    with snapshot(database) as connection:
        return load_run(connection, run_id)


def list_runs(
    database: Database, provider: str | None = None, month: Month | None = None, limit: int = 100
) -> list[Run]:
    """Runs, newest first."""
    with snapshot(database) as connection:
        return [load_run(connection, row["id"]) for row in queries.find_runs(connection, None, provider, month, limit)]


def find_finding(run: Run, number: int) -> Found:
    """One finding. Raises UnknownDocument."""
    for each in run.findings:
        if each.number == number:
            return each
    raise UnknownDocument(f"{run.id} has the findings 1 to {len(run.findings)}, not {number}.")


def _found(row: Any, decided: Any) -> Found:
    names = [name for name in Found.__slots__ if name not in ("state", "decided_by", "reason", "cells", "bill_lines")]
    state: FindingState = "settled" if row["kind"] in HARMLESS or not row["variance_pico"] else "open"
    return Found(
        **{name: row[name] for name in names},
        bill_lines=tuple(row["bill_lines"]),
        cells=tuple(tuple(cell) for cell in row["cells"]),
        state=decided["state"] if decided is not None else state,
        decided_by=decided["accepted_by"] if decided is not None else None,
        reason=decided["reason"] if decided is not None else None,
    )


def _harmless(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    return value if value[1:].replace(".", "", 1).isdecimal() else f"'{value}"


def numbers_of(run: Run, numbers: Sequence[int], kind: Kind | None) -> list[Found]:
    """The findings that are meant: by number, or every open one of a class."""
    if kind is not None:
        return [each for each in run.findings if each.kind == kind and each.state == "open"]
    return [find_finding(run, number) for number in dict.fromkeys(numbers)]
