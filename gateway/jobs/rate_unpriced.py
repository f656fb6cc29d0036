"""Rates what was served without a price, once there is one: corrections in the ledger, each exactly once.

What has no price yet waits, and what is held for it stays held. Raises Unavailable when the database does not answer; what was
rated by then stays rated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.billing.ledger import post
from gateway.billing.unpriced import queries as unpriced
from gateway.billing.unpriced.correct import Waiting, correction
from gateway.billing.unpriced.counters import changes_of
from gateway.billing.unpriced.first_prices import FirstPrices
from gateway.catalog import Catalog, Model
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.metering import queries as metering
from gateway.types import UsageEvent

PAGE = 500


@dataclass(slots=True)
class Rated:
    """What one pass did: corrections written, their money, and the calls that still wait, by model."""

    calls: int = 0
    cost_pico: int = 0
    charge_pico: int = 0
    waiting: Counter[str] = field(default_factory=Counter)


class Context(Protocol):
    """What a job has."""

    @property
    def catalog(self) -> Catalog:
        """The configuration."""
        ...

    @property
    def database(self) -> Database:
        """Where usage and prices are."""
        ...

    @property
    def now(self) -> Callable[[], float]:
        """Seconds since the epoch."""
        ...


def run(context: Context) -> str | None:
    """The job: a few words about what was rated, None when there was nothing."""
    done = rate_unpriced(context.database, context.catalog, context.now())
    return f"{done.calls} calls rated" if done.calls else None


def rate_unpriced(database: Database, catalog: Catalog, now: float) -> Rated:
    """Write a correction for every call without a price whose model has one by now."""
    done = Rated()
    after = ("", 0)
    while page := unpriced.waiting_calls(database, after, PAGE):
        after = (page[-1].request_id, page[-1].number)
        prices = FirstPrices(catalog, database, min(call.started_at for call in page), now)
        events = [event for call in page if (event := _rated(call, catalog, prices, now)) is not None]
        rated = {event.request_id for event in events}
        done.waiting.update(call.model for call in page if call.correction_id not in rated)
        written, put_off = _write(
            database, events, [call.request_id for call in page if call.correction_id in rated], now
        )
        done.waiting.update(call.model for call in page if call.correction_id in rated and call.request_id in put_off)
        for event in written:
            done.calls += 1
            done.cost_pico += event.cost
            done.charge_pico += event.charge
    return done


def _rated(call: Waiting, catalog: Catalog, first: FirstPrices, now: float) -> UsageEvent | None:
    model = _deployment(call, catalog)
    prices = first.of(model, call.started_at) if model is not None else None
    if model is None or prices is None:
        return None
    return correction(call, prices.cost(model), prices.charge(call.request["tenant"], model), now)


def _deployment(call: Waiting, catalog: Catalog) -> Model | None:
    """The deployment that answered, as it is configured now; another one of its group has another price."""
    for model in catalog.groups.get(call.model, ()):
        if (model.provider, model.upstream_model) == (call.provider, call.upstream_model):
            return model
    return None


def _write(
    database: Database, events: Sequence[UsageEvent], request_ids: Sequence[str], now: float
) -> tuple[list[UsageEvent], set[str]]:
    """Write corrections that are not there yet, with their ledger transactions and what counters have to change by, and end
    the holds. Returns the new ones, and the requests that are put off until their counters have what they hold.
    """
    if not events:
        return [], set()
    with transaction(database) as connection:
        # Two who rate at the same time wait for each other here; the second one finds everything done.
        held = {name: hold for name, (_, hold) in metering.lock_holds(connection, request_ids).items()}
        put_off = unpriced.given_back(connection, request_ids)
        events = [event for event in events if event.explanation["corrects"] not in put_off]
        metering.open_months(connection, {event.started_at for event in events})
        unknown = post(connection, events, now)
        new = [event for event in events if event.request_id in unknown]
        metering.insert_usage(connection, new)
        ended = unpriced.close_rated_holds(connection, request_ids, now)
        unpriced.change_counters(connection, changes_of(new, held, ended), now)
    return new, put_off
