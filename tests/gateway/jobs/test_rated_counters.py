"""Counters in a real Redis after calls without a price are rated: what SQL says, once, whoever is killed on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.billing.budgets import CounterRebuild
from gateway.billing.counters.queries import pending_changes, used
from gateway.billing.prices.queries import write_prices
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import Unavailable
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.store.base import Claim, Missing
from gateway.store.redis import PREFIX, RedisStore
from gateway.types import Attempt, Usage, UsageEvent
from tests.backends import running_redis
from tests.builders import catalog
from tests.gateway.billing.test_unpriced import CHARGE, MAXIMUM, NOON, priced, rate, served, unpriced
from tests.gateway.jobs.test_give_back import context_of, run_job
from tests.pricing import pair
from tests.usage import hold_of

USER = "b\"o'b/日本 %"
MONEY = (
    "budget-day/2026-10-05/tenant:acme",
    "budget-month/2026-10/key:key_1",
    "budget-lifetime/ever/project:acme/web",
    f"budget-week/2026-W41/user:acme/{USER}",
    "budget-lifetime/ever/tag:acme/batch",
    "budget-lifetime/ever/model:acme/new",
    "session-money/99999999/session:acme/run",
)
TOKENS = "tokens-day/2026-10-05/tenant:acme"
LATER = NOON + timedelta(hours=1)


@pytest.fixture
def counters(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def asked(*attempts: Attempt, **changes: Any) -> UsageEvent:
    """A call without a price that every kind of budget counts."""
    given = {"project": "web", "end_user": USER, "tags": ("batch", "other"), "session_id": "run", **changes}
    return served(*attempts, **given)


async def serve(
    database: Database, folder: Path, redis_url: str, event: UsageEvent, names: tuple[str, ...] = MONEY
) -> None:
    """Hold, settle and deliver as a gateway does: the counters keep what the request owes without a price."""
    claims = tuple((name, event.hold) for name in names)
    store = RedisStore(redis_url)
    assert await store.reserve([Claim(name, amount, 10**18) for name, amount in claims]) is None
    await store.adjust(
        [
            (
                Claim(name, amount, 0),
                sum(a.owed for a in event.attempts if "model:" not in name or name.endswith(a.model)),
            )
            for name, amount in claims
        ],
        once=event.request_id,
    )
    await store.close()
    spool = Spool.open(folder)
    spool.hold(hold_of(event, claims=claims, project=event.project, end_user=event.end_user))
    spool.settle(event)
    spool.close()
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()


def stand(counters: redis.Redis, names: tuple[str, ...] = MONEY) -> dict[str, int]:
    return {name: int(counters.get(PREFIX + name) or 0) for name in names}


def summed(database: Database, *, shared: bool, names: tuple[str, ...] = MONEY) -> dict[str, int]:
    return {name: used(database, name, "acme", LATER.timestamp(), shared=shared) for name in names}


def waiting(database: Database) -> int:
    with snapshot(database) as connection:
        return len(pending_changes(connection, 100))


async def test_every_counter_ends_at_what_the_call_costs_and_a_rebuild_at_any_moment_agrees(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await serve(database, tmp_path, redis_url, asked())
    assert stand(counters) == summed(database, shared=True) == dict.fromkeys(MONEY, MAXIMUM)
    priced(database, 3, 15, LATER)
    assert rate(database, LATER).calls == 1
    assert summed(database, shared=False) == dict.fromkeys(MONEY, CHARGE)
    assert stand(counters) == summed(database, shared=True) == dict.fromkeys(MONEY, MAXIMUM), "not corrected yet"
    run_job(context_of(database, redis_url))
    for _ in range(2):
        assert stand(counters) == summed(database, shared=True) == dict.fromkeys(MONEY, CHARGE)
        assert waiting(database) == 0
        assert rate(database, LATER).calls == 0
        run_job(context_of(database, redis_url))


async def test_a_charge_beyond_what_was_held_reaches_the_counters_too(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await serve(database, tmp_path, redis_url, asked())
    counters.set(PREFIX + TOKENS, 4000)
    priced(database, 300, 1500, LATER)
    rate(database, LATER)
    run_job(context_of(database, redis_url))
    assert stand(counters) == dict.fromkeys(MONEY, 100 * CHARGE)
    assert counters.get(PREFIX + TOKENS) == b"4000", "its tokens were counted when it ended"


async def test_a_budget_that_was_given_while_the_call_waited_is_corrected_as_well(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await serve(database, tmp_path, redis_url, asked(), MONEY[:1])
    new = ("budget-lifetime/ever/tenant:acme", "budget-month/2026-10/tag:acme/batch")

    async def rebuild() -> None:
        store = RedisStore(redis_url)
        for name in new:
            await CounterRebuild(store, database).restore(Missing((Claim(name, 1, 10**18, kept=True),)), "acme")
        await store.close()

    await rebuild()
    assert stand(counters, new) == {new[0]: MAXIMUM, new[1]: 0}, "what tags hold is known from claims alone"
    priced(database, 3, 15, LATER)
    rate(database, LATER)
    run_job(context_of(database, redis_url))
    assert stand(counters, new) == summed(database, shared=True, names=new) == dict.fromkeys(new, CHARGE)


def two_models() -> Catalog:
    return catalog(
        *({"name": name, "tier": "economy", "provider": "openai", "base_url": "http://127.0.0.1:1/v1", "price": "book"}
          for name in ("new", "other")),
        tenants=[{"name": "acme"}], policies={"default": {"unpriced": "hold"}},
    )  # fmt: skip


async def test_a_request_of_which_one_call_still_waits_counts_the_other_and_all_that_is_held(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    names = (*MONEY, "budget-lifetime/ever/model:acme/other")
    first = unpriced(Usage(input=100), model="other", upstream_model="other", status="error")
    await serve(database, tmp_path, redis_url, asked(first, unpriced(number=2), hold=2 * MAXIMUM), names)
    priced(database, 3, 15, LATER)
    assert rate(database, LATER).waiting == {"other": 1}
    run_job(context_of(database, redis_url))
    assert stand(counters, names) == summed(database, shared=True, names=names)
    assert stand(counters)[MONEY[0]] == CHARGE + 2 * MAXIMUM
    write_prices(database, pair(1, 1, model="other", valid_from=LATER), [], LATER)
    assert rate(database, LATER, two_models()).calls == 1
    assert stand(counters, names) == summed(database, shared=True, names=names)
    run_job(context_of(database, redis_url))
    assert (
        stand(counters, names)
        == summed(database, shared=True, names=names)
        == summed(database, shared=False, names=names)
    )
    assert stand(counters, names)["budget-lifetime/ever/model:acme/other"] == 100 * 10**6


KILLED = """
import os, sys
from sqlalchemy import event
from gateway.db.connect import connect
from tests.gateway.billing.test_unpriced import rate
from tests.gateway.jobs.test_give_back import context_of
from tests.gateway.jobs.test_rated_counters import LATER
from gateway.jobs.holds.give_back import give_back_holds

what, url, redis_url, statement = sys.argv[1:]
database = connect(url)

@event.listens_for(database.engine, "before_cursor_execute")
def die(connection, cursor, text, parameters, context, executemany):
    if text.startswith(statement):
        os.kill(os.getpid(), 9)

rate(database, LATER) if what == "rate" else give_back_holds(context_of(database, redis_url))
"""


@pytest.mark.parametrize(
    ("what", "statement"), [("rate", "INSERT INTO counter_changes"), ("correct", "DELETE FROM counter_changes")]
)
async def test_a_process_that_is_killed_on_the_way_costs_nothing_and_counts_nothing_twice(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path, what: str, statement: str
) -> None:
    """Killed before its last statement: a rating is then undone, a correction made in Redis and not noted in SQL."""
    await serve(database, tmp_path, redis_url, asked())
    priced(database, 3, 15, LATER)
    if what == "correct":
        assert rate(database, LATER).calls == 1
    url = database.engine.url.render_as_string(hide_password=False)
    died = subprocess.run([sys.executable, "-c", KILLED, what, url, redis_url, statement], timeout=60, check=False)
    assert died.returncode == -9
    assert stand(counters) == dict.fromkeys(MONEY, CHARGE if what == "correct" else MAXIMUM)
    assert rate(database, LATER).calls == (1 if what == "rate" else 0)
    assert waiting(database) == 1
    run_job(context_of(database, redis_url))
    assert stand(counters) == summed(database, shared=True) == dict.fromkeys(MONEY, CHARGE)
    assert waiting(database) == 0


async def test_what_a_lost_redis_is_rebuilt_to_has_the_correction_once(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    await serve(database, tmp_path, redis_url, asked())
    priced(database, 3, 15, LATER)
    rate(database, LATER)
    counters.flushdb()
    store = RedisStore(redis_url)
    await CounterRebuild(store, database).restore(Missing((Claim(MONEY[0], 1, 10**18, kept=True),)), "acme")
    await store.close()
    assert stand(counters)[MONEY[0]] == MAXIMUM
    run_job(context_of(database, redis_url))
    assert stand(counters) == {**dict.fromkeys(MONEY, 0), MONEY[0]: CHARGE}, "counters that are gone stay gone"


async def test_corrections_wait_for_a_redis_that_is_away_and_go_nowhere_without_one(
    database: Database, tmp_path: Path
) -> None:
    with running_redis() as server:
        await serve(database, tmp_path, server.url, asked())
        priced(database, 3, 15, LATER)
        rate(database, LATER)
        server.process.send_signal(19)
        with pytest.raises(Unavailable):
            run_job(context_of(database, server.url))
        assert waiting(database) == 1
        server.process.send_signal(18)
        run_job(context_of(database, server.url))
        with redis.Redis.from_url(server.url) as client:
            assert stand(client) == dict.fromkeys(MONEY, CHARGE)
        await serve(database, tmp_path, server.url, asked())
    rate(database, LATER)
    assert waiting(database) == 1
    run_job(context_of(database, None))
    assert waiting(database) == 0
    assert summed(database, shared=False) == summed(database, shared=True) == dict.fromkeys(MONEY, 2 * CHARGE)


async def test_a_call_whose_hold_was_given_back_is_rated_when_the_counters_have_it_again(
    database: Database, counters: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """Its process seemed dead, so its hold was released and given back; then its settlement came, without a price."""
    names = tuple(name for name in MONEY if "/ever/" in name)
    now = datetime.now(UTC)
    event = asked(at=now - timedelta(hours=1))
    for name in names:
        counters.set(PREFIX + name, MAXIMUM)
    spool = Spool.open(tmp_path)
    claims, ended = tuple((name, MAXIMUM) for name in names), (now - timedelta(minutes=30)).timestamp()
    spool.hold(hold_of(event, claims=claims, project="web", end_user=USER, expires_at=ended))
    deliverer = Deliverer(tmp_path, database)
    deliverer.deliver_once()
    run_job(context_of(database, redis_url))
    assert stand(counters, names) == dict.fromkeys(names, 0)
    spool.settle(event)
    spool.close()
    deliverer.deliver_once()
    deliverer.close()
    priced(database, 3, 15, now)
    done = rate(database, now)
    assert (done.calls, done.waiting) == (0, {"new": 1}), "the job adds what is held first"
    run_job(context_of(database, redis_url))
    assert stand(counters, names) == dict.fromkeys(names, MAXIMUM)
    assert rate(database, now).calls == 1
    run_job(context_of(database, redis_url))
    assert stand(counters, names) == summed(database, shared=True, names=names) == dict.fromkeys(names, CHARGE)
