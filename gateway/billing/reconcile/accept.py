"""Decide about findings: accept them, which posts the difference of cost to the ledger, or dispute them, which posts nothing.

Usage never changes: the correction is a transaction of its own with a reason and a name, taken back if a later run no longer
finds the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import uuid4

from sqlalchemy import Connection

from gateway.billing.ledger.book import Document, book
from gateway.billing.ledger.post import Account
from gateway.billing.reconcile import queries
from gateway.billing.reconcile.desk import Kind
from gateway.billing.reconcile.scope import whose
from gateway.billing.reconcile.show import Found, Run, load_run, numbers_of
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict
from gateway.money import format_usd

Decision = Literal["accepted", "disputed"]


def decide(
    database: Database,
    run_id: str,
    numbers: Sequence[int],
    decision: Decision,
    reason: str,
    by: str,
    now: datetime,
    *,
    kind: Kind | None = None,
    actor: str | None = None,
) -> Run:
    """Accept or dispute findings of the newest run, all of them or none; `kind` takes every open one of a class. The audit
    log has it as done by `actor`, by default by who decides.

    Raises ValueError for an empty reason or name and when nothing is named, UnknownDocument for a run or finding that does
    not exist, Conflict for an older run, a finding without variance, and one that is decided already.
    """
    if not reason.strip() or not by.strip():
        raise ValueError("the reason and the name must not be empty: they stay in the books")
    with transaction(database) as connection:
        run = load_run(connection, run_id)
        queries.lock_provider(connection, run.provider)
        run = load_run(connection, run_id)
        check_newest(connection, run)
        chosen = numbers_of(run, numbers, kind)
        if not chosen:
            raise ValueError(f"{run.id} has no open finding that is meant; name findings by number, or a class")
        for each in chosen:
            _decide(connection, run, each, decision, reason.strip(), by.strip(), now)
        after = {
            "provider": run.provider,
            "period": str(run.month),
            "findings": [each.number for each in chosen],
            "variance_usd": format_usd(sum(each.variance_pico for each in chosen)),
            "reason": reason.strip(),
            "by": by.strip(),
        }
        action = "reconciliation.accept" if decision == "accepted" else "reconciliation.dispute"
        write_audit(connection, actor or by.strip(), now.timestamp(), Change(action, run.id, after=after))
        return load_run(connection, run_id)


def check_newest(connection: Connection, run: Run) -> None:
    """Raises Conflict when the month has been reconciled again since."""
    newest = queries.find_runs(connection, None, run.provider, run.month, 1)[0]["id"]
    if newest != run.id:
        raise Conflict(f"{run.month} of {run.provider!r} has been reconciled again since; use {newest}.")


def _decide(
    connection: Connection, run: Run, each: Found, decision: Decision, reason: str, by: str, now: datetime
) -> None:
    if each.state in ("accepted", "disputed"):
        raise Conflict(
            f"finding {each.number} of {run.id} is {each.state} already, by {each.decided_by}: {each.reason}"
        )
    if not each.variance_pico:
        raise Conflict(f"finding {each.number} of {run.id} has no variance; there is nothing to decide.")
    acceptance = f"acceptance_{uuid4().hex[:16]}"
    row = {
        "id": acceptance,
        "provider": run.provider,
        "period": str(run.month),
        "fingerprint": each.fingerprint,
        "run_id": run.id,
        "number": each.number,
        "state": decision,
        "amount_pico": each.variance_pico,
        "reason": reason,
        "accepted_at": now,
        "accepted_by": by,
    }
    queries.insert_acceptance(connection, row)
    if decision == "accepted":
        provider = whose(queries.find_bill(connection, run.bill_id)).provider
        entries = {
            Account("cost", provider): each.variance_pico,
            Account("payable", provider): -each.variance_pico,
        }
        book(connection, "reconciliation", Document("reconciliation", acceptance), entries, now)
