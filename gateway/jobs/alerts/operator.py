"""Tells the operator what somebody should look at: dead letters, messages that were given up, books that do not agree.

Each is told once, and again after it had been put right. Without receivers it is logged and listed all the same.
"""

from __future__ import annotations

from gateway.billing.ledger.verify import DEAD_LETTERS, verify
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts import queries
from gateway.jobs.alerts.fire import Alert, AlertKind, fire
from gateway.jobs.outbox.queries import dead_messages
from gateway.jobs.runner import Context

ONLY = ("", "", "", 0)
"""There is one of each kind at a time."""


def watch(context: Context) -> str | None:
    """Look at what has piled up. Raises Unavailable."""
    with snapshot(context.database) as connection:
        letters, messages = queries.count_dead_letters(connection), dead_messages(connection)
    told = [
        _tell(
            context,
            "dead_letters",
            letters,
            f"{letters} records could not be booked",
            "They are in the table dead_letters with the reason, and are not billed until somebody looks into them: "
            "docs/operations.md, Dead letters.",
        ),
        _tell(
            context,
            "events",
            messages,
            f"{messages} messages to other systems were given up",
            "`penstock events list` says which and why; `penstock events retry` sends them again.",
        ),
    ]
    return "; ".join(each for each in told if each) or None


def verify_books(context: Context) -> str | None:
    """Check the ledger as `penstock ledger verify` does. Raises Unavailable."""
    result = verify(context.database, context.settings.spool)
    problems = [problem for problem in result.problems if problem.rule != DEAD_LETTERS]
    broken = "; ".join(f"{problem.rule}: {problem.count} times" for problem in problems)
    _tell(
        context,
        "books",
        len(problems),
        f"the books do not agree: {len(problems)} rules are broken",
        f"{broken}.\n`penstock ledger verify` shows where.",
    )
    return f"BROKEN: {broken}" if problems else f"the books of {result.usage_events} requests are right"


def _tell(context: Context, kind: AlertKind, count: int, subject: str, text: str) -> str | None:
    """Give the alert while there is something, end it when there is nothing any more."""
    now = context.now()
    with snapshot(context.database) as connection:
        stands = ONLY in queries.standing(connection, kind, [""], [""])
    if stands == (count > 0):
        return None
    with transaction(context.database) as connection:
        if not count:
            queries.end_alert(connection, kind, ONLY, now)
            return f"{kind}: put right"
        alert = Alert(kind, ONLY, None, f"Penstock: {subject}", f"{text}\n", {"count": count})
        return subject if fire(connection, alert, context.catalog.outlets.alerts, now) else None
