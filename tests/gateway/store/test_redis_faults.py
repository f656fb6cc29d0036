"""A Redis that is frozen, gone or not Redis: calls end within their deadline with Unavailable, and nothing is taken late."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio as redis_client

from gateway.errors import ConfigError, Unavailable
from gateway.store.base import Claim, Missing
from gateway.store.memory import MemoryStore
from gateway.store.open import open_store
from gateway.store.redis import LONGEST_SECONDS, RedisStore
from tests.backends import RedisServer, free_port, running_redis

DEADLINE = 0.3
GIVEN_UP_SECONDS = LONGEST_SECONDS + 10.0
"""Far less than forever: the end of a busy process's patience, and time to notice it."""
CLAIM = Claim("budget", 10, 100, time.time() + 3600)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may freeze."""
    with running_redis() as server:
        yield server


async def test_a_frozen_redis_is_given_up_within_the_deadline_and_takes_nothing_when_it_wakes(
    own_redis: RedisServer,
) -> None:
    store = RedisStore(own_redis.url, deadline=DEADLINE)
    assert await store.reserve([CLAIM]) is None
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        for call in (
            store.reserve([CLAIM]),
            store.adjust([(CLAIM, 1)]),
            store.read(["budget"]),
            store.restore("x", 1, None),
        ):
            with pytest.raises(Unavailable):
                await call
        assert time.monotonic() - started < 4 * GIVEN_UP_SECONDS
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    await asyncio.sleep(0.1)
    # The adjust may have been carried out on waking, the late reserve must not have been.
    assert await store.read(["budget"]) in ([10], [1])
    assert await store.reserve([CLAIM]) is None
    await store.close()


async def test_many_requests_at_a_frozen_redis_all_get_their_refusal_in_time(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url, deadline=DEADLINE)
    await store.reserve([CLAIM])
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answers = await asyncio.gather(*(store.reserve([CLAIM]) for _ in range(300)), return_exceptions=True)
        assert time.monotonic() - started < GIVEN_UP_SECONDS
        assert all(isinstance(answer, Unavailable) for answer in answers)
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    await asyncio.sleep(0.1)
    assert await store.read(["budget"]) == [10]
    await store.close()


async def test_a_process_that_was_too_busy_to_listen_does_not_hold_that_against_redis(redis_url: str) -> None:
    store = RedisStore(redis_url, deadline=DEADLINE)
    assert await store.reserve([CLAIM]) is None
    for turns in (0, 1, 3):  # nothing sent yet, perhaps sent, perhaps answered
        asked = asyncio.create_task(store.reserve([CLAIM]))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(2 * DEADLINE)
        assert await asked is None
    assert await store.read(["budget"]) == [40]
    await store.close()


async def test_a_named_correction_may_be_repeated_after_a_freeze(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url, deadline=DEADLINE)
    for _ in range(2):
        await store.reserve([CLAIM])
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable):
            await store.adjust([(CLAIM, 3)], once="correction")
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    for _ in range(2):
        await store.adjust([(CLAIM, 3)], once="correction")
    assert await store.read(["budget"]) == [13]
    await store.close()


async def test_a_redis_that_restarts_is_used_again() -> None:
    with running_redis() as first:
        store = RedisStore(first.url, deadline=2.0)
        assert await store.reserve([CLAIM]) is None
        first.process.terminate()
        first.process.wait()
        with pytest.raises(Unavailable, match="cannot be used"):
            await store.reserve([CLAIM])
    with running_redis(first.port):
        assert await store.reserve([CLAIM]) is None
        assert await store.read(["budget"]) == [10]
    await store.close()


async def test_a_redis_that_comes_back_with_an_old_snapshot_has_lost_its_counters(tmp_path: Path) -> None:
    """What was spent after the snapshot would be free again; a correction is made against what is restored."""
    budget, minute = Claim("budget", 60, 100, kept=True), Claim("tokens", 60, 100, time.time() + 60)
    with running_redis(folder=tmp_path) as first:
        store, other = RedisStore(first.url), RedisStore(first.url)
        for each in (store, other):  # both know the process and its scripts
            assert isinstance(await each.reserve([budget]), Missing)
        await store.restore("budget", 0, None)
        async with redis_client.from_url(first.url) as client:
            await client.save()
        assert await store.reserve([budget, minute]) is None
        taken_in = store.epoch
        first.process.kill()
        first.process.wait()
    for correction_first in (True, False):
        with running_redis(first.port, folder=tmp_path) as again:
            async with redis_client.from_url(again.url) as client:
                assert await client.get("{penstock}:budget") == b"0", "the snapshot was loaded"
            for each in (store, other):
                with suppress(Unavailable):  # its connection may be to the dead one
                    await each.read(["budget"])
            if correction_first:
                await other.adjust([(budget, 50), (minute, 50)], once="name", epoch=taken_in)
                assert await other.read(["budget", "tokens"]) == [0, 0]
            assert await store.reserve([budget]) == Missing((budget,))
            assert store.epoch != taken_in
            assert store.age() < 30
            await other.restore("budget", 60, None)
            assert (await other.reserve([budget])) is not None, "60 and 60 are more than 100"
            assert other.epoch == store.epoch
            await store.adjust([(budget, 50)], once="name" if not correction_first else "late", epoch=taken_in)
            assert await other.read(["budget"]) == [50]
            again.process.kill()
            again.process.wait()
    for each in (store, other):
        await each.close()


async def test_claims_of_before_the_data_was_lost_are_corrected_by_what_was_restored(redis_url: str) -> None:
    """A restored counter knows the hold of a request that was open then, and the charge of one that had ended."""
    store, other = RedisStore(redis_url), RedisStore(redis_url)
    kept, plain = Claim("budget", 10, 100, None, kept=True), Claim("tokens", 10, 100, time.time() + 60)
    lease = Claim("parallel", 1, 5, time.time() + 60, lease="x")
    await store.restore("budget", 0, None)
    assert await store.reserve([kept, plain]) is None
    taken_in = store.epoch
    assert store.age() < 30
    async with redis_client.from_url(redis_url) as client:
        await client.flushall()
    await other.restore("budget", 50, None)
    assert await other.reserve([kept, plain, lease]) is None
    assert other.age() < 5
    await store.adjust([(kept, 3), (plain, 4), (lease, 0)], once="open", epoch=taken_in)
    assert await store.read(["budget", "tokens", "parallel"]) == [50 + 10 - 7, 10 + 4, 0]
    await store.adjust([(kept, 3), (plain, 4)], once="ended", epoch=taken_in, late=True)
    assert await store.read(["budget", "tokens"]) == [53, 18]
    await other.adjust([(kept, 4), (plain, 4)], once="new", epoch=other.epoch, late=True)
    assert await store.read(["budget", "tokens"]) == [47, 12]
    assert await store.reserve([kept]) is None
    assert store.epoch == other.epoch != taken_in
    for each in (store, other):
        await each.close()


async def test_a_hold_of_everything_is_one_round_trip(redis_url: str) -> None:
    store = RedisStore(redis_url)
    claims = [Claim(f"c{number}", 1, 100, time.time() + 60) for number in range(20)]
    await store.reserve(claims)  # the first one learns the script, the clock and the epoch
    async with redis_client.from_url(redis_url) as client:
        before = await client.info("commandstats")
        await store.reserve(claims, tell=[0, 19])
        after = await client.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 1
    assert after["cmdstat_time"]["calls"] - before["cmdstat_time"]["calls"] == 1  # inside the script
    await store.close()


async def test_no_redis_at_all_is_unavailable() -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0", deadline=DEADLINE)
    with pytest.raises(Unavailable, match="cannot be used"):
        await store.reserve([CLAIM])
    await store.close()


@pytest.mark.parametrize("url", ["not a url", "http://127.0.0.1:6379", "postgresql://x"])
def test_a_url_that_is_not_redis_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://"):
        open_store(url)


def test_without_a_url_the_store_is_this_process() -> None:
    assert isinstance(open_store(None), MemoryStore)
