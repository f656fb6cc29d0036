"""Gives what orphaned holds took back to the shared counters, so that a killed process does not cost a budget its period.

The deliverer closes such holds in SQL without a charge. Here their claims are taken off the counters under the name of the
request, which a late settlement by a process that only seemed gone uses as well: whoever comes second changes nothing, and the
store says who was first. Should its usage reach SQL after this job was first, its charge is added to the counters, once.
What counters lack since calls were rated is added in the same way. Whatever fails is done again at the next run; the store
remembers the names for longer than any counter but those of lifetime budgets lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from gateway.billing.counters.queries import LateCharge, late_charges, pending_changes
from gateway.billing.unpriced.counters import CounterChange
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.holds import queries
from gateway.jobs.holds.queries import Taken
from gateway.jobs.runner import Context
from gateway.store.base import KEPT_SECONDS, Claim, Maker, Store
from gateway.store.open import open_store
from gateway.store.windows import corrected_as

BATCH = 500
REMEMBER_SECONDS = 40 * 86_400.0
MARGIN_SECONDS = 300.0
"""How far the clocks of a gateway and of this job may be apart."""
LATE = "late/"
"""Before the name of a request whose charge is added after its hold was given back."""

logger = logging.getLogger(__name__)


def give_back_holds(context: Context) -> str | None:
    """Give back what released holds still take, add charges that came after that, and bring counters up to date with calls
    that were rated. Raises Unavailable.

    Counters in the memory of a gateway are gone with it, so then there is nothing to give back.
    """
    url = context.settings.redis_url or context.catalog.redis
    given, charged, rated = asyncio.run(_work_off(context, open_store(url) if url is not None else None))
    if url is None or not given + charged + rated:
        return None
    words = [f"{given} orphaned holds given back, {charged} late charges added"] if given + charged else []
    return ", ".join([*words, *([f"counters corrected for {rated} rated requests"] if rated else [])])


async def _work_off(context: Context, store: Store | None) -> tuple[int, int, int]:
    """How many holds were given back, late charges added, and rated requests brought to the counters."""
    given = charged = rated = 0
    database = context.database
    try:
        while not context.stop.is_set():
            with snapshot(database) as connection:
                released = queries.to_give_back(connection, BATCH)
            made_by = {hold.request_id: await _give_back(store, hold, context.now()) for hold in released}
            if released:
                with transaction(database) as connection:
                    queries.mark_given_back(connection, _names(made_by, "job"), context.now())
                    queries.forget_claims(connection, _names(made_by, "request"))
            with snapshot(database) as connection:
                late = late_charges(connection, at_most=BATCH)
            for hold in late:
                await _charge(store, hold)
            if late:
                with transaction(database) as connection:
                    queries.unmark(connection, [hold.request_id for hold in late])
            with snapshot(database) as connection:
                lacking = pending_changes(connection, BATCH)
            for change in lacking:
                await _add(store, change)
            if lacking:
                with transaction(database) as connection:
                    queries.forget_changes(connection, [change.name for change in lacking])
            given, charged, rated = given + len(released), charged + len(late), rated + len(lacking)
            if not released and not late and not lacking:
                break
    finally:
        if store is not None:
            await store.close()
    return given, charged, rated


async def _give_back(store: Store | None, hold: Taken, now: float) -> Maker:
    """Take its claims off the counters unless that is done. By whom, this job (perhaps before a crash) or the request."""
    if store is None:
        return "job"
    if now - hold.created_at > KEPT_SECONDS - MARGIN_SECONDS:
        # The store may have forgotten that the request was corrected; so it counts as that.
        logger.error("the hold of %s is too old to be given back safely; its budgets count too much", hold.request_id)
        return "request"
    claims = [(Claim(counter, amount, 0), 0) for counter, amount in hold.claims.items() if corrected_as(counter)]
    return await store.adjust(claims, once=hold.request_id, remember=REMEMBER_SECONDS, by="job")


def _names(made_by: Mapping[str, Maker], maker: Maker) -> list[str]:
    return [request_id for request_id, by in made_by.items() if by == maker]


async def _charge(store: Store | None, hold: LateCharge) -> None:
    if store is not None:
        claims = [(Claim(counter, 0, 0), hold.amount(counter)) for counter in hold.counters]
        await store.adjust(claims, once=LATE + hold.request_id, remember=REMEMBER_SECONDS)


async def _add(store: Store | None, change: CounterChange) -> None:
    if store is not None:
        claims = [(Claim(counter, max(0, -more), 0), max(0, more)) for counter, more in change.changes.items()]
        await store.adjust(claims, once=change.name, remember=REMEMBER_SECONDS)
