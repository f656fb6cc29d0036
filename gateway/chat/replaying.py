"""Replays a period: reads what was remembered of its requests, scores and decides them again, and says what that changes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, cast

from gateway.abilities import Abilities
from gateway.billing.prices.book import PriceBook
from gateway.catalog import Catalog
from gateway.chat.what_if import Asks, Situation
from gateway.config_policies import Policy
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import InvalidValue, NotFound
from gateway.promising import promise_maker_of
from gateway.rescoring import Shelf, recorded, rescored
from gateway.routing.past.columns import Past
from gateway.routing.past.queries import count_requests, read_past
from gateway.routing.past.speeds import measured_states
from gateway.routing.policies.live import standing
from gateway.routing.policies.queries import read_overrides
from gateway.routing.promises import Promises
from gateway.routing.replay import reasons, replay
from gateway.routing.replay_report import example, example_places, report
from gateway.scorers import kept_routers

MOST = 500_000
"""Requests that are replayed without being asked for a sample: about a gigabyte of memory."""
WITHOUT_RECORD = "shadow requests, and requests under `remember: nothing`"
NOT_REPLAYED = (
    "budgets, failing or slow deployments, prompt caches, the shares of premium answers and of unfamiliar prompts"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to replay, [since, until), and under what. `policy`, one itself or by name, takes the place of every request's own.

    `artifact` is a version, or a Path of a file, which only who runs commands on this machine may name. `sample` is how many
    requests to replay at most; without it a period that has more than MOST is refused.
    """

    since: datetime
    until: datetime
    tenant: str | None = None
    policy: Policy | str | None = None
    artifact: str | Path | None = None
    min_quality: float | None = None
    sample: int | None = None


def run_replay(database: Database, catalog: Catalog, wish: Wish) -> dict[str, Any]:
    """What replaying a period says, JSON-ready. `catalog` may be another one than the gateway's: other models or prices.

    Raises InvalidValue for an impossible wish or a period that is too large, NotFound when there is nothing to replay,
    ConfigError for an artifact that cannot be used, Unavailable when the database does not answer.
    """
    if not catalog.models:
        raise InvalidValue("The configuration to replay under has no models, so nobody could answer.", param="config")
    shelf = Shelf(database)
    router, named = shelf.open(wish.artifact), wish.artifact is not None
    shown = any(model.quality is not None for model in catalog.models)
    past, policies, requests = _read(database, catalog, wish, features=named or shown)
    states = measured_states(past, catalog.models)
    if named or shown:
        past, scores, requests["left_out"] = rescored(past, router, all_by_it=named, shown=shown)
    else:
        scores = recorded(past)
    if not len(past):
        raise NotFound(_nothing(catalog, wish, requests))
    situation = _situation(database, catalog, wish, policies, shelf, set(scores.artifact))
    asks = Asks(past, situation, states)
    with without_cycles():
        replayed = replay(past, scores, asks, asks.groups(scores))
    requests |= {
        "replayed": len(past),
        "auto": sum(mode is not None for mode in past.mode),
        "model_not_configured": dict(asks.gone),
    }
    places = example_places(replayed)
    why = reasons(scores, asks, places)
    return {
        "since": wish.since.isoformat(),
        "until": wish.until.isoformat(),
        "tenant": wish.tenant,
        "under": _under(wish),
        "artifacts": sorted(set(scores.artifact)),
        "requests": requests,
        **report(past, replayed),
        "examples": [example(past, replayed, place, reason) for place, reason in zip(places, why, strict=True)],
        "promises": _promises(asks),
        "not_replayed": NOT_REPLAYED,
    }


def _read(
    database: Database, catalog: Catalog, wish: Wish, *, features: bool
) -> tuple[Past, dict[str, Policy], dict[str, Any]]:
    """The requests, the policies that count now, and how many requests there are."""
    with snapshot(database) as connection:
        routed, kept = count_requests(connection, wish.since, wish.until, wish.tenant)
        share = _share(kept, wish)
        past = read_past(connection, wish.since, wish.until, wish.tenant, share=share, features=features)
        policies = {each.name: each.policy for each in standing(catalog, read_overrides(connection))}
    sampled = kept if share < 1.0 else None
    counts: dict[str, Any] = {
        "routed": routed,
        "without_record": routed - kept,
        "sample_of": sampled,
        "read": len(past),
        "left_out": {},
    }
    return past, policies, counts


def _nothing(catalog: Catalog, wish: Wish, requests: dict[str, Any]) -> str:
    """Why there is nothing to replay."""
    said = f"There is nothing to replay: no request from {wish.since:%Y-%m-%d %H:%M} to {wish.until:%Y-%m-%d %H:%M} UTC"
    if wish.tenant is not None:
        said += f" of the tenant {wish.tenant!r}"
        if wish.tenant not in catalog.tenants:
            said += ", which the configuration does not have,"
    said += " has a routing record that can be used."
    if without := requests["without_record"]:
        said += f" {without} were routed without one: {WITHOUT_RECORD}."
    for reason, count in requests["left_out"].items():
        said += f" {count} are left out: {reason.replace('_', ' ')}."
    return said


def _situation(
    database: Database,
    catalog: Catalog,
    wish: Wish,
    policies: Mapping[str, Policy],
    shelf: Shelf,
    artifacts: set[str],
) -> Situation:
    """Prices of now, and promises and abilities as each of the artifacts sees prompts."""
    abilities = Abilities(catalog, shelf.bundled, partial(kept_routers, database))
    for version in artifacts - {shelf.bundled.version}:
        if (router := shelf.of(version)) is not None:
            abilities.learn(router)
    book = PriceBook(catalog, database)
    book.renew()
    prices = book.current()
    promises = Promises(catalog, lambda: prices.costs, promise_maker_of(shelf.of))
    return Situation(
        catalog, policies, prices, promises, abilities.of, _policy(wish.policy, policies), wish.min_quality
    )


@contextmanager
def without_cycles() -> Iterator[None]:
    """Without looking for cycles among some million small objects that have none, which takes a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _share(kept: int, wish: Wish) -> float:
    if wish.until <= wish.since:
        raise InvalidValue(
            f"The period ends at {wish.until} and begins at {wish.since}; it must end later.", param="until"
        )
    if wish.sample is None and kept > MOST:
        raise InvalidValue(
            f"The period has {kept} requests, and at most {MOST} are replayed at once. Take a shorter one, or a sample "
            f"of them (`sample`, for example 100000).",
            param="sample",
        )
    return min(1.0, wish.sample / kept) if wish.sample is not None and kept else 1.0


def _policy(wanted: Policy | str | None, policies: Mapping[str, Policy]) -> Policy | None:
    if not isinstance(wanted, str):
        return wanted
    if wanted not in policies:
        known = ", ".join(sorted(policies))
        raise InvalidValue(f"There is no policy {wanted!r}. There are: {known}.", param="policy")
    return policies[wanted]


def _under(wish: Wish) -> dict[str, Any]:
    """What took the place of what; null for what stayed as it is configured."""
    named = wish.policy is None or isinstance(wish.policy, str)
    return {
        "policy": wish.policy if named else cast(Policy, wish.policy).model_dump(mode="json"),
        "artifact": str(wish.artifact) if wish.artifact is not None else None,
        "min_quality": wish.min_quality,
    }


def _promises(asks: Asks) -> dict[str, Any]:
    """What a unit of quality was worth by floor, and the artifacts whose prompts had to keep their floor one by one."""
    worths = [
        {
            "artifact": artifact,
            "confidence": confidence,
            "floor": floor,
            "worth_pico_usd": worth if isfinite(worth) else None,
        }
        for (artifact, confidence, floor, *_), worth in asks.worths.items()
        if worth is not None
    ]
    return {"worths": worths, "floor_for_each_prompt": sorted(asks.strict)}
