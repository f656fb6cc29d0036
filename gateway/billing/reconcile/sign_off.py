"""Sign off a month of a provider or of a tenant: who, when, which totals; what changes afterwards is shown, never hidden.

A provider's month needs a reconciliation of the bill and the book as they are now, with no more left open than its tolerance.
A tenant's month needs its finalised invoice, which bills what was used. Anything else needs a reason, which stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Connection

from gateway.billing.invoices.queries import living_invoice, usage_sums
from gateway.billing.periods.month import Month
from gateway.billing.periods.queries import period_state
from gateway.billing.reconcile import queries
from gateway.billing.reconcile.book.queries import Whose, book_total
from gateway.billing.reconcile.scope import whose
from gateway.billing.reconcile.show import load_run
from gateway.billing.retention.queries import removed_charge
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict
from gateway.money import format_usd

Owner = Literal["provider", "tenant"]
Totals = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignOff:
    """One signature. `changes` are totals that differ now: name -> (signed, now); amounts end in `_pico` or `_cents`."""

    id: str
    kind: Owner
    owner: str
    month: Month
    signed_at: datetime
    signed_by: str
    note: str
    forced: str | None
    totals: Totals
    changes: dict[str, tuple[Any, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "owner": self.owner,
            "period": str(self.month),
            "signed_at": self.signed_at.isoformat(),
            "signed_by": self.signed_by,
            "note": self.note,
            "forced": self.forced,
            "totals": self.totals,
            "changes": {name: {"signed": then, "now": now} for name, (then, now) in self.changes.items()},
        }


def sign_off(
    database: Database,
    kind: Owner,
    owner: str,
    month: Month,
    by: str,
    note: str,
    now: datetime,
    *,
    force: str | None = None,
    actor: str | None = None,
) -> SignOff:
    """Sign a month off with its totals of now. `force` is the reason to do so although it is not ready; the audit log has it
    as done by `actor`, by default by who signs.

    Raises ValueError for an empty name or reason; Conflict for a month that has not ended, is not ready, or is signed off and
    has not changed since.
    """
    if not by.strip() or (force is not None and not force.strip()):
        raise ValueError("the name and the reason must not be empty: they stay with the month")
    if month.end > now:
        raise Conflict(f"{month} has not ended; it can be signed off from {month.end:%Y-%m-%d} 00:00 UTC on.")
    with transaction(database) as connection:
        queries.lock_provider(connection, owner if kind == "provider" else f"tenant {owner}")
        earlier = _read(connection, kind, owner, str(month))
        if earlier and not earlier[0].changes:
            raise Conflict(
                f"{month} of {owner!r} is signed off already, by {earlier[0].signed_by} on {earlier[0].signed_at:%Y-%m-%d}, "
                "and has not changed since."
            )
        totals = TOTALS[kind](connection, owner, month)
        problem = READY[kind](connection, owner, month)
        if problem is not None and force is None:
            raise Conflict(
                f"{month} of {owner!r} cannot be signed off: {problem}. Put it right, or give a reason with --force."
            )
        row = {
            "id": f"signoff_{uuid4().hex[:16]}",
            "kind": kind,
            "owner": owner,
            "period": str(month),
            "number": len(earlier) + 1,
            "signed_at": now,
            "signed_by": by.strip(),
            "note": note.strip(),
            "forced": f"{force.strip()} ({problem})" if force is not None and problem is not None else None,
            "totals": totals,
        }
        queries.insert_sign_off(connection, row)
        # Sign-offs are the operator's: the row has no tenant, so that members of one do not read it.
        after = {name: row[name] for name in ("id", "number", "signed_by", "note", "forced", "totals")}
        change = Change("reconciliation.sign_off", f"{kind} {owner} {month}", after=after)
        write_audit(connection, actor or by.strip(), now.timestamp(), change)
        return _read(connection, kind, owner, str(month))[0]


def list_sign_offs(
    database: Database, kind: Owner | None = None, owner: str | None = None, period: str | None = None
) -> list[SignOff]:
    """Signatures, newest first, each with what has changed since."""
    with snapshot(database) as connection:
        return _read(connection, kind, owner, period)


def _read(connection: Connection, kind: Owner | None, owner: str | None, period: str | None) -> list[SignOff]:
    found = []
    for row in queries.find_sign_offs(connection, kind=kind, owner=owner, period=period):
        month = Month.parse(row["period"])
        now = TOTALS[row["kind"]](connection, row["owner"], month)
        changes = {
            name: (row["totals"].get(name), now.get(name))
            for name in sorted({*row["totals"], *now})
            if row["totals"].get(name) != now.get(name)
        }
        names = [name for name in SignOff.__slots__ if name not in ("month", "changes")]
        found.append(SignOff(**{name: row[name] for name in names}, month=month, changes=changes))
    return found


def _provider_totals(connection: Connection, provider: str, month: Month) -> Totals:
    bill = queries.standing_bill(connection, provider, month)
    mine = whose(bill) if bill is not None else Whose(provider)
    requests, book = book_total(connection, mine, month)
    decided = queries.standing_acceptances(connection, provider, month)

    def total(state: str) -> int:
        return sum(each["amount_pico"] for each in decided if each["state"] == state)

    return {
        "bill": bill["id"] if bill is not None else None,
        "bill_pico": bill["total_pico"] if bill is not None else None,
        "requests": requests,
        "book_pico": book,
        "accepted_pico": total("accepted"),
        "disputed_pico": total("disputed"),
    }


def _provider_problem(connection: Connection, provider: str, month: Month) -> str | None:
    bill = queries.standing_bill(connection, provider, month)
    if bill is None:
        return "no bill is imported"
    runs = queries.find_runs(connection, None, provider, month, 1)
    if not runs or runs[0]["bill_id"] != bill["id"]:
        return "the bill has not been reconciled; run `penstock reconcile run`"
    run = load_run(connection, runs[0]["id"])
    _, book = book_total(connection, whose(bill), month)
    if book != run.book_pico:
        return f"{format_usd(book - run.book_pico)} USD of usage has arrived since {run.id}; reconcile again"
    if run.open_pico > run.tolerance_pico:
        count = sum(each.state == "open" for each in run.findings)
        return (
            f"{format_usd(run.open_pico)} USD of variance in {count} findings of {run.id} is neither accepted nor disputed, "
            f"and {format_usd(run.tolerance_pico)} USD may be"
        )
    return None


def _tenant_totals(connection: Connection, tenant: str, month: Month) -> Totals:
    invoice = living_invoice(connection, tenant, month)
    used = sum(each.amount_pico for each in usage_sums(connection, tenant, month))
    used += removed_charge(connection, tenant, month)
    return {
        "invoice": invoice.number if invoice is not None else None,
        "state": period_state(connection, tenant, month),
        "used_pico": used,
        "invoiced_pico": invoice.totals.usage_pico if invoice is not None else None,
        "total_cents": invoice.totals.total_cents if invoice is not None else None,
        "credited_cents": invoice.credited_cents if invoice is not None else None,
    }


def _tenant_problem(connection: Connection, tenant: str, month: Month) -> str | None:
    totals = _tenant_totals(connection, tenant, month)
    if totals["state"] != "closed":
        return f"it is {totals['state']}; `penstock invoice close` closes it"
    if totals["used_pico"] != totals["invoiced_pico"]:
        return f"{format_usd(totals['used_pico'])} USD were used and {format_usd(totals['invoiced_pico'])} USD are invoiced"
    return None


TOTALS: dict[str, Callable[[Connection, str, Month], Totals]] = {"provider": _provider_totals, "tenant": _tenant_totals}
READY: dict[str, Callable[[Connection, str, Month], str | None]] = {
    "provider": _provider_problem,
    "tenant": _tenant_problem,
}
