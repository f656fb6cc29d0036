"""The SQL of giving holds back: which released ones still count in the shared store, and what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, text, update

from gateway.db.job_tables import counter_changes
from gateway.db.tables import TO_GIVE_BACK, holds, moment


@dataclass(frozen=True, slots=True)
class Taken:
    """What one request took from which counters, and when it began (seconds since the epoch)."""

    request_id: str
    claims: dict[str, int]
    created_at: float


def to_give_back(connection: Connection, at_most: int) -> list[Taken]:
    """Released holds whose claims the shared counters still have, oldest first."""
    query = select(holds.c.request_id, holds.c.claims, holds.c.created_at).where(text(TO_GIVE_BACK))
    rows = connection.execute(query.order_by(holds.c.closed_at).limit(at_most))
    return [Taken(row.request_id, _by_counter(row.claims), row.created_at.timestamp()) for row in rows]


def mark_given_back(connection: Connection, request_ids: Sequence[str], now: float) -> None:
    """The counters no longer have these. One that was settled meanwhile is marked as well: its charge is then added."""
    changed = update(holds).where(holds.c.request_id.in_(request_ids)).values(given_back_at=moment(now))
    connection.execute(changed)


def forget_claims(connection: Connection, request_ids: Sequence[str]) -> None:
    """The counters have, or may have, the charges of these released holds: nothing is given back, now or later."""
    changed = update(holds).where(holds.c.request_id.in_(request_ids), holds.c.state == "released")
    connection.execute(changed.values(claims=None))


def unmark(connection: Connection, request_ids: Sequence[str]) -> None:
    """The counters have the charges of these now, as if they had never been released."""
    connection.execute(update(holds).where(holds.c.request_id.in_(request_ids)).values(given_back_at=None))


def forget_changes(connection: Connection, names: Sequence[str]) -> None:
    """The counters have these now."""
    connection.execute(delete(counter_changes).where(counter_changes.c.name.in_(names)))


def _by_counter(claims: Sequence[Sequence[object]] | None) -> dict[str, int]:
    amounts: dict[str, int] = defaultdict(int)
    for counter, amount in claims or ():
        amounts[str(counter)] += int(str(amount))
    return dict(amounts)
