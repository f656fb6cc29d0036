"""Whether the books are right: every rule of the ledger as one query, with examples of what breaks it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gateway.billing.agreement import rules as agreement
from gateway.billing.ledger import queries
from gateway.db import roll_up
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.metering.segments import undelivered_records
from gateway.money import format_usd
from gateway.types import UsageEvent

ORPHANED_AFTER_SECONDS = 120.0
"""A hold still open this long after its end has no one who will close it: even the deliverer has not."""

EXAMPLES = 5
DEAD_LETTERS = "no record is a dead letter"


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule: how often, and the first few places."""

    rule: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """The state of the books. `undelivered_records` are in the spool and not yet in SQL, which is no error."""

    usage_events: int
    transactions: int
    entries: int
    rated_lines: int
    open_holds: int
    invoices: int
    credit_notes: int
    grants: int
    dead_letters: int
    undelivered_records: int
    cost_pico: int
    charge_pico: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """No rule is broken."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON: counts, amounts in pico-USD and as decimal USD, and the problems."""
        return {
            "ok": self.ok,
            "usage_events": self.usage_events,
            "transactions": self.transactions,
            "entries": self.entries,
            "rated_lines": self.rated_lines,
            "open_holds": self.open_holds,
            "invoices": self.invoices,
            "credit_notes": self.credit_notes,
            "grants": self.grants,
            "dead_letters": self.dead_letters,
            "undelivered_records": self.undelivered_records,
            "cost_pico": self.cost_pico,
            "charge_pico": self.charge_pico,
            "cost_usd": format_usd(self.cost_pico),
            "charge_usd": format_usd(self.charge_pico),
            "problems": [
                {"rule": problem.rule, "count": problem.count, "examples": list(problem.examples)}
                for problem in self.problems
            ],
        }


RULES = (
    ("every transaction sums to zero", queries.unbalanced_transactions),
    ("every finished request has its transaction", queries.events_without_transaction),
    ("every usage transaction has its request", queries.transactions_without_event),
    ("every entry has its transaction", queries.entries_without_transaction),
    ("every rated line is quantity x rate", queries.wrongly_rated_lines),
    ("every request is the sum of its rated lines", queries.events_unlike_their_lines),
    ("every request is the sum of its attempts", queries.events_unlike_their_attempts),
)
BOOKS = (("receivable", 1), ("revenue", -1), ("cost", 1), ("payable", -1))


def verify(database: Database, spool_folder: Path) -> Verification:
    """Check every rule against one state of the database. Raises Unavailable when it does not answer."""
    now = time.time()
    with snapshot(database) as connection:
        totals = queries.totals(connection)
        problems = [_check(connection, rule, query()) for rule, query in RULES]
        problems += [_compare(connection, kind, sign) for kind, sign in BOOKS]
        problems += [_problem(rule, list(broken(connection))) for rule, broken in agreement.RULES]
        problems += [
            _problem("roll-ups by hour agree with the requests", list(roll_up.wrong_hours(connection))),
            _problem("roll-ups by day are sums of those by hour", list(roll_up.wrong_days(connection))),
        ]
        orphans = dict.fromkeys(queries.overdue_holds(connection, now - ORPHANED_AFTER_SECONDS))
        undelivered = 0
        for record in undelivered_records(spool_folder, queries.checkpoints(connection)):
            undelivered += 1
            if isinstance(record, UsageEvent):
                orphans.pop(record.request_id, None)
    problems.append(_problem("no hold is orphaned", list(orphans)))
    problems.append(Problem(DEAD_LETTERS, totals["dead_letters"], ("see the table dead_letters",)))
    return Verification(
        **totals,
        undelivered_records=undelivered,
        problems=tuple(problem for problem in problems if problem.count),
    )


def _check(connection: Connection, rule: str, query: Any) -> Problem:
    count, examples = queries.first_and_count(connection, query, EXAMPLES)
    return Problem(rule, count, tuple(examples))


def _compare(connection: Connection, kind: str, sign: int) -> Problem:
    """The ledger's balances of one kind against the same sums of usage."""
    ledger, usage = queries.balances(connection, kind), queries.usage_by(connection, kind)
    differing = [
        f"{owner}: ledger {sign * ledger.get(owner, 0)}, usage {usage.get(owner, 0)}"
        for owner in sorted(ledger.keys() | usage.keys())
        if sign * ledger.get(owner, 0) != usage.get(owner, 0)
    ]
    return _problem(f"usage and the {kind} accounts agree", differing)


def _problem(rule: str, found: list[str]) -> Problem:
    return Problem(rule, len(found), tuple(found[:EXAMPLES]))
