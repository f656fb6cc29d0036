"""Keep a provider's bill, compare it with our book, and keep what was found; a run never changes, a new one stands beside it.

What was accepted in an earlier run stays accepted where the new run finds the same again, and is taken back where it does not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from gateway.billing.ledger.book import Document, take_back
from gateway.billing.periods.month import Month
from gateway.billing.reconcile import queries
from gateway.billing.reconcile.align import Names, align, common_names, renamed
from gateway.billing.reconcile.book import queries as book
from gateway.billing.reconcile.classify import Known, classify
from gateway.billing.reconcile.desk import Finding, quantity
from gateway.billing.reconcile.lines import BillLine, BookLine, zone_of
from gateway.billing.reconcile.read import Bill
from gateway.billing.reconcile.scope import settings_of, whose
from gateway.billing.reconcile.show import Run, load_run
from gateway.billing.retention.queries import removed_months_for
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Pico-USD. `rounding`: what one bill line may be off without being looked at; `variance`: how much may stay open."""

    rounding: int
    variance: int


def import_bill(database: Database, bill: Bill, now: datetime, by: str, *, replace: bool = False) -> tuple[str, bool]:
    """Keep a bill; returns its id and whether it is new. The same files again change nothing.

    A month has one bill: Conflict when another one is there and `replace` is not given.
    """
    with transaction(database) as connection:
        queries.lock_provider(connection, bill.provider)
        known = queries.standing_bill(connection, bill.provider, bill.month)
        if known is not None and known["sha256"] == bill.digest:
            return known["id"], False
        if known is not None and not replace:
            raise Conflict(
                f"{bill.month} of {bill.provider!r} has a bill already, imported {known['imported_at']:%Y-%m-%d %H:%M} from "
                f"{', '.join(known['files'])}. Give all files of a month at once, or --replace it."
            )
        if known is not None:
            queries.replace_bill(connection, known["id"], now)
        row = {
            "id": f"bill_{uuid4().hex[:16]}",
            "provider": bill.provider,
            "period": str(bill.month),
            "form": bill.form,
            "sha256": bill.digest,
            "files": list(bill.files),
            "settings": asdict(bill.settings),
            "line_count": len(bill.lines),
            "total_pico": bill.total,
            "imported_at": now,
            "imported_by": by,
        }
        queries.insert_bill(connection, row, bill.lines)
        return str(row["id"]), True


def reconcile(
    database: Database,
    provider: str,
    month: Month,
    tolerances: Tolerances,
    now: datetime,
    by: str,
    served: Iterable[tuple[str, str]] = (),
) -> Run:
    """Compare the bill of a month with our book and keep the findings. `served`: (provider, upstream name) of
    all that is configured, as a model that nobody asked is ours, too.

    Raises Conflict when no bill was imported.
    """
    with transaction(database) as connection:
        queries.lock_provider(connection, provider)
        bill = queries.standing_bill(connection, provider, month)
        if bill is None:
            raise Conflict(f"no bill of {provider!r} for {month} is imported; `penstock reconcile import` does that.")
        if gone := removed_months_for(connection, None, month):
            raise Conflict(
                f"the requests of {', '.join(gone)} have been removed by retention, so {month} cannot be reconciled any more; "
                "the runs of before stay."
            )
        findings = _compare(connection, provider, month, bill, tolerances, served)
        earlier = queries.find_runs(connection, None, provider, month, 1)
        run_id = f"run_{uuid4().hex[:16]}"
        row = {
            "id": run_id,
            "bill_id": bill["id"],
            "provider": provider,
            "period": str(month),
            "number": 1 + (earlier[0]["number"] if earlier else 0),
            "run_at": now,
            "run_by": by,
            "rounding_pico": tolerances.rounding,
            "tolerance_pico": tolerances.variance,
            "bill_pico": bill["total_pico"],
            "book_pico": bill["total_pico"] - sum(each.variance for each in findings),
        }
        rows = _rows(run_id, findings)
        queries.insert_run(connection, row, rows)
        _take_back_stale(connection, provider, month, {each["fingerprint"] for each in rows}, run_id, now)
        return load_run(connection, run_id)


def aligned_book(
    connection: Connection,
    bill: Mapping[str, Any],
    lines: Sequence[BillLine],
    served: Iterable[str] = (),
    *,
    by_request: bool | None = None,
    days: Sequence[date] = (),
) -> tuple[list[BookLine], Names]:
    """Our book in the grain of a bill, and the names under which they meet. `by_request` keeps the requests apart anyway."""
    settings, month = settings_of(bill), Month.parse(bill["period"])
    named = any(line.request_id is not None for line in lines)
    apart = named if by_request is None else by_request
    found = book.book_lines(connection, whose(bill), month, zone_of(settings.zone), by_request=apart, days=days)
    billed = {line.model for line in lines if line.model is not None}
    ours = {*(line.model for line in found), *(name for name in served if not settings.only or name in settings.only)}
    names = common_names(ours, billed, dict(settings.models))
    return align(renamed(lines, names), found, names, keep_requests=bool(by_request)), names


def _compare(
    connection: Connection,
    provider: str,
    month: Month,
    bill: Mapping[str, Any],
    tolerances: Tolerances,
    served: Iterable[tuple[str, str]],
) -> list[Finding]:
    lines = queries.bill_lines(connection, bill["id"])
    configured = [name for provider_, name in served if provider_ == whose(bill).provider]
    noted, names = aligned_book(connection, bill, lines, configured)
    beside = []
    for other in (_before(month), month.next):
        neighbour = queries.standing_bill(connection, provider, other)
        if neighbour is not None:
            beside += queries.bill_lines(connection, neighbour["id"])
    known = Known(
        models=names.served,
        ours=frozenset(settings_of(bill).ours),
        rates=book.other_rates(connection, whose(bill), month, names.of_book),
        rounding=tolerances.rounding,
        neighbours=tuple(renamed((line for line in beside if line.model in names.of_bill), names)),
    )
    return sorted(classify(renamed(lines, names), noted, known), key=_weight)


def _rows(run_id: str, findings: list[Finding]) -> list[dict[str, Any]]:
    """Findings as they are kept. Equal ones of one run get different fingerprints."""
    rows, seen = [], Counter[str]()
    for number, each in enumerate(findings, 1):
        both: tuple[BillLine | BookLine, ...] = (*each.bill, *each.book)
        first, last = _days(each)
        row: dict[str, Any] = {
            "kind": each.kind,
            "first_day": first,
            "last_day": last,
            "model": _joined(line.model for line in both),
            "meter": _joined(line.meter for line in both) or "",
            "tier": _joined(line.tier or "default" for line in both) or "",
            "bill_quantity": quantity(each.bill) if each.bill else None,
            "book_quantity": quantity(each.book) if each.book else None,
            "bill_pico": sum(line.amount for line in each.bill),
            "book_pico": sum(line.amount for line in each.bill) - each.variance,
            "variance_pico": each.variance,
            "why": each.why,
        }
        cells = sorted(
            {(line.day.isoformat(), line.model, line.meter, line.tier, line.request_id or "") for line in each.book}
        )
        print_ = hashlib.sha256(repr((sorted(row.items(), key=str), cells)).encode()).hexdigest()
        seen[print_] += 1
        row |= {
            "run_id": run_id,
            "number": number,
            "fingerprint": f"{print_}-{seen[print_]}",
            "bill_lines": [line.position for line in each.bill],
            "cells": [list(cell) for cell in cells],
        }
        rows.append(row)
    return rows


def _take_back_stale(
    connection: Connection, provider: str, month: Month, found: set[str], run_id: str, now: datetime
) -> None:
    """Acceptances of variances that are no longer there are withdrawn, and what they posted is reversed."""
    for accepted in queries.standing_acceptances(connection, provider, month):
        if accepted["fingerprint"] not in found:
            queries.withdraw_acceptance(connection, accepted["id"], now, f"{run_id} does not find it any more")
            if accepted["state"] == "accepted":
                take_back(connection, Document("reconciliation", accepted["id"]), now)


def _days(each: Finding) -> tuple[date, date]:
    both: tuple[BillLine | BookLine, ...] = (*each.bill, *each.book)
    days = [line.day for line in both]
    return min(days, default=date.min), max(days, default=date.min)


def _weight(each: Finding) -> tuple[Any, ...]:
    """The largest variance first; equal ones in an order that does not depend on the database."""
    cells = sorted((line.model, line.meter, line.tier) for line in each.book)
    return -abs(each.variance), each.kind, _days(each), each.why, cells, [line.position for line in each.bill]


def _joined(names: Iterable[str | None]) -> str | None:
    return ", ".join(sorted({name for name in names if name})) or None


def _before(month: Month) -> Month:
    return Month(month.year - (month.number == 1), (month.number - 2) % 12 + 1)
