"""Claims that Redis took although nobody heard of it: they are given back, once, and nothing else is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.errors import Unavailable
from gateway.store.base import Claim
from gateway.store.redis import UNDO_EVERY, RedisStore
from tests.backends import RedisServer, free_port, running_redis

DEADLINE = 0.3
CLAIM = Claim("budget", 10, 100, time.time() + 3600)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of its own for each test."""
    with running_redis() as server:
        yield server


@asynccontextmanager
async def losing_answers(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a way to Redis on which answers are lost while the event is set."""
    lost, port = asyncio.Event(), int(url.rpartition(":")[2].partition("/")[0])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if not (back and lost.is_set()):
                    writer.write(data)
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_redis = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, to_redis[1], False), carry(to_redis[0], writer, True))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", lost
    finally:
        server.close()


async def test_what_was_taken_though_nobody_heard_of_it_is_given_back(own_redis: RedisServer) -> None:
    lease = Claim("parallel", 1, 5, time.time() + 3600, lease="request")
    direct = RedisStore(own_redis.url, deadline=DEADLINE)
    async with losing_answers(own_redis.url) as (url, lost):
        store = RedisStore(url, deadline=DEADLINE)
        assert await store.reserve([CLAIM]) is None
        lost.set()
        with pytest.raises(Unavailable):
            await store.reserve([CLAIM, lease])
        assert await direct.read(["budget"]) == [20]  # Redis did take it
        lost.clear()
        gives_up_at = time.monotonic() + 60
        while await direct.read(["budget"]) != [10]:
            assert time.monotonic() < gives_up_at
            await asyncio.sleep(0.1)
        assert await direct.reserve([lease._replace(lease="another", limit=1)]) is None
        await asyncio.sleep(2 * UNDO_EVERY)
        assert await direct.read(["budget"]) == [10]  # once, and what was heard of stays
        await store.close()
    await direct.close()


async def test_a_reserve_that_is_cancelled_is_given_back(own_redis: RedisServer) -> None:
    direct = RedisStore(own_redis.url, deadline=DEADLINE)
    async with losing_answers(own_redis.url) as (url, lost):
        store = RedisStore(url, deadline=60)
        assert await store.reserve([CLAIM]) is None
        lost.set()
        asked = asyncio.create_task(store.reserve([CLAIM]))
        while await direct.read(["budget"]) != [20]:
            await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        lost.clear()
        await store.close()  # one last attempt
        assert await direct.read(["budget"]) == [10]
    await direct.close()


async def test_a_counter_that_ended_and_was_summed_anew_is_left_alone(own_redis: RedisServer) -> None:
    direct = RedisStore(own_redis.url, deadline=DEADLINE)
    async with losing_answers(own_redis.url) as (url, lost):
        store = RedisStore(url, deadline=DEADLINE)
        assert await store.reserve([CLAIM]) is None
        lost.set()
        with pytest.raises(Unavailable):
            await store.reserve([Claim("session", 10, 100, time.time() + 1.0, sliding=True)])
        while await direct.read(["session"]) != [0]:
            await asyncio.sleep(0.05)
        assert await direct.restore("session", 50, time.time() + 3600)
        lost.clear()
        await asyncio.sleep(4 * UNDO_EVERY)
        assert await direct.read(["session"]) == [50]
        await store.close()
    await direct.close()


async def test_what_cannot_be_undone_before_the_end_is_named(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with losing_answers(own_redis.url) as (url, lost):
        store = RedisStore(url, deadline=DEADLINE)
        assert await store.reserve([CLAIM]) is None
        lost.set()
        with pytest.raises(Unavailable):
            await store.reserve([CLAIM])
        await store.close()
        assert "1 reserves could not be undone" in caplog.text


async def test_what_was_never_sent_is_not_undone(own_redis: RedisServer) -> None:
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0", deadline=DEADLINE)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await store.reserve([CLAIM])
    assert not store._lost
    await store.close()
