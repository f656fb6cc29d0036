"""A thousand requests at once through four gateways that share Redis and PostgreSQL: nothing is spent that is not there."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
import redis

from tests.running import KEY, Gateway, gateway, model, upstream

GATEWAYS = 4
REQUESTS = 1000
SCRIPTS: dict[str, Any] = {
    "quick": {},
    "slow": {"behaviour": "slow", "first_token_seconds": 0.02, "per_token_seconds": 0.005},
    "flaky": {"behaviour": "flaky", "fail_every": 3},
    "cut": {"behaviour": "cut", "break_after": 2},
    "hang": {"behaviour": "hang"},
}
PRICE = {"input": 1000, "output": 2000}
"""USD per million tokens; dear, so that amounts are easy to read."""


@dataclass
class Fleet:
    """Gateways of one installation, its shared counters, and its database."""

    gateways: list[Gateway]
    redis_url: str
    database_url: str

    def counters(self, what: str) -> dict[str, int]:
        """The values of all counters whose name starts so."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            names = sorted(client.scan_iter(f"{{penstock}}:{what}*"))
            return {name: int(client.get(name) or 0) for name in names}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the shared database."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]

    def settle(self, requests: int) -> None:
        """Wait until every request is metered, the refused ones too, and no hold is open."""
        deadline = time.monotonic() + 60
        while True:
            ((metered,),) = self.rows("SELECT count(*) FROM usage_events")
            ((held,),) = self.rows("SELECT count(*) FROM holds WHERE state = 'open'")
            if metered >= requests and held == 0:
                return
            assert time.monotonic() < deadline, f"{metered} of {requests} metered, {held} holds open"
            time.sleep(0.2)


@contextmanager
def fleet(folder: Path, database_url: str, redis_url: str, scripts: dict[str, Any], **config: Any) -> Iterator[Fleet]:
    """Four gateways, each with a spool and a deliverer of its own, as four machines would be."""
    with ExitStack() as stack:
        up = stack.enter_context(upstream(scripts))
        models = [
            model(name, "economy", up.url, price=PRICE, deadlines={"total": 3 if name == "hang" else 60})
            for name in scripts
        ]
        stack.enter_context(_flushed(redis_url))
        started = [
            stack.enter_context(
                gateway(
                    folder / f"gateway{number}",
                    {"models": models, **config},
                    DATABASE_URL=database_url,
                    REDIS_URL=redis_url,
                )
            )
            for number in range(GATEWAYS)
        ]
        yield Fleet(started, redis_url, database_url)


@contextmanager
def _flushed(redis_url: str) -> Iterator[None]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    yield


@dataclass
class Answer:
    """What one request came to. `status` 0: the client hung up in the middle of a stream."""

    status: int
    code: str | None
    headers: dict[str, str]


async def ask(session: aiohttp.ClientSession, url: str, chance: random.Random) -> Answer:
    """One request of a random kind and size; every tenth stream is left in the middle."""
    name = chance.choices(["quick", "slow", "flaky", "cut", "hang"], [50, 25, 12, 10, 3])[0]
    words = " ".join(["word"] * chance.randint(1, 40))
    stream = chance.random() < 0.5
    leaves = stream and chance.random() < 0.1
    body = {
        "model": name,
        "messages": [{"role": "user", "content": words}],
        "max_completion_tokens": chance.randint(1, 60),
        "stream": stream,
    }
    async with session.post(f"{url}/chat/completions", json=body) as reply:
        headers = dict(reply.headers)
        if reply.status == 200 and leaves:
            await reply.content.readany()
            reply.close()
            return Answer(0, None, headers)
        try:
            text = await reply.text()
        except aiohttp.ClientError:
            return Answer(0, None, headers)
        code = (await reply.json())["error"]["code"] if reply.status != 200 else None
        if reply.status == 200:
            assert stream or "usage" in text
        return Answer(reply.status, code, headers)


def storm(running: Fleet, seed: int, requests: int = REQUESTS, at_once: int = REQUESTS) -> list[Answer]:
    """So many requests, spread over the gateways; all at once unless told otherwise."""
    chance = random.Random(seed)

    async def run() -> list[Answer]:
        connector = aiohttp.TCPConnector(limit=at_once)
        headers = {"authorization": f"Bearer {KEY}"}
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            urls = [each.base_url for each in running.gateways]
            return await asyncio.gather(*(ask(session, urls[number % len(urls)], chance) for number in range(requests)))

    return asyncio.run(run())


@pytest.mark.timeout(240)
def test_a_budget_for_three_hundred_of_a_thousand_requests_is_never_overspent(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    limit = 15_000_000_000_000  # about 300 requests of 50 thousandths of a dollar
    tenants = [{"name": "acme", "budget": {"limit_usd": 15, "period": "lifetime"}}]
    keys = [{"key": KEY, "name": "app", "tenant": "acme"}]
    with fleet(tmp_path, postgres_url, redis_url, SCRIPTS, tenants=tenants, keys=keys) as running:
        answers = storm(running, seed=1)
        # A hold is the worst case, so the storm is refused while money is still held; what comes after it gets the rest.
        for seed in range(6, 16):
            after = storm(running, seed=seed, requests=100, at_once=4)
            answers += after
            if sum(answer.code == "budget_exceeded" for answer in after) > 50:
                break
        running.settle(len(answers))
        kinds = Counter((answer.status, answer.code) for answer in answers)
        refused = [answer for answer in answers if answer.code == "budget_exceeded"]
        # A machine too busy to hear Redis in time refuses as well, before anything is asked of a provider.
        unheard = [answer for answer in answers if answer.code == "unavailable"]
        assert refused, kinds
        assert all(answer.headers.get("x-should-retry") == "false" for answer in refused)

        ((charged, served),) = running.rows(
            "SELECT sum(charge_pico), count(*) FROM usage_events WHERE attempt_count > 0"
        )
        assert served == len(answers) - len(refused) - len(unheard), kinds
        assert 200 < served < 600, f"the budget was meant for about 300 requests: {kinds}"
        assert charged <= limit, f"overspent by {charged - limit} pico-USD"
        assert charged > limit * 8 // 10, f"more than a fifth of the budget was left: {kinds}"
        assert sum(running.counters("budget-").values()) == charged, "the counter is what was charged, nothing held"
        states = dict(running.rows("SELECT state, count(*) FROM holds GROUP BY state"))
        assert states == {"settled": len(answers)}
        ((booked,),) = running.rows(
            "SELECT sum(amount_pico) FROM ledger_entries JOIN ledger_accounts ON id = account_id WHERE kind = 'receivable'"
        )
        assert booked == charged
        assert running.gateways[0].json("ledger", "verify")["ok"]


@pytest.mark.timeout(240)
def test_holds_of_a_killed_gateway_are_given_back_and_the_budget_is_whole_again(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    tenants = [{"name": "acme", "budget": {"limit_usd": 1000, "period": "lifetime"}}]
    keys = [{"key": KEY, "name": "app", "tenant": "acme"}]
    scripts = {"slow": {"behaviour": "slow", "first_token_seconds": 0.05, "per_token_seconds": 2.0}}
    with fleet(tmp_path, postgres_url, redis_url, scripts, tenants=tenants, keys=keys) as running:

        async def streams() -> None:
            body = {
                "model": "slow",
                "messages": [{"role": "user", "content": "one two three four five six seven"}],
                "max_completion_tokens": 10,
                "stream": True,
            }
            async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
                replies = [
                    await session.post(f"{running.gateways[number % GATEWAYS].base_url}/chat/completions", json=body)
                    for number in range(40)
                ]
                assert sum(running.counters("budget-").values()) > 0
                running.gateways[0].kill()
                for number, reply in enumerate(replies):
                    if number % GATEWAYS:
                        assert "[DONE]" in await reply.text()

        asyncio.run(streams())
        running.gateways[0].start()
        running.settle(40)
        ((charged,),) = running.rows("SELECT sum(charge_pico) FROM usage_events")
        ((interrupted,),) = running.rows("SELECT count(*) FROM usage_events WHERE outcome = 'interrupted'")
        assert interrupted == 10
        deadline = time.monotonic() + 60
        while (left := sum(running.counters("budget-").values())) != charged:
            assert time.monotonic() < deadline, f"{left - charged} pico-USD are still held"
            time.sleep(0.5)
        assert running.gateways[0].json("ledger", "verify")["ok"]


@pytest.mark.timeout(240)
def test_parallel_and_token_limits_hold_over_all_gateways(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    parallel, tokens = 20, 12_000
    limits = {"parallel": parallel, "tokens_per_minute": tokens}
    keys = [{"key": KEY, "name": "app", "limits": limits}]
    with fleet(tmp_path, postgres_url, redis_url, SCRIPTS, keys=keys) as running:
        answers = storm(running, seed=2)
        running.settle(REQUESTS)
        kinds = Counter((answer.status, answer.code) for answer in answers)
        assert kinds[429, "limit_exceeded"] > 0, kinds
        calls = running.rows("SELECT started_at, seconds FROM attempts ORDER BY started_at")
        assert _most_at_once(calls) <= parallel
        assert _most_at_once(calls) > parallel // 2, "the limit was never approached, so nothing was shown"
        assert 0 < max(running.counters("tokens/").values()) <= tokens
        ((metered,),) = running.rows("SELECT sum(input + cache_read + output + reasoning) FROM usage_events")
        # A correction that found Redis too busy is made again a little later.
        deadline = time.monotonic() + 60
        while (used := sum(running.counters("tokens/").values())) != metered:
            assert time.monotonic() < deadline, (
                f"the minutes' counters hold {used} tokens, their requests used {metered}"
            )
            time.sleep(0.5)
        with redis.Redis.from_url(redis_url) as client:
            assert not [name for name in client.scan_iter("{penstock}:parallel*") if client.zcard(name)]


def _most_at_once(calls: list[tuple[Any, ...]]) -> int:
    """The largest number of upstream calls that overlapped."""
    edges = sorted(
        [(started.timestamp(), 1) for started, _ in calls]
        + [(started.timestamp() + seconds, -1) for started, seconds in calls]
    )
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


@pytest.mark.timeout(240)
def test_a_frozen_redis_refuses_and_afterwards_the_counters_are_right(
    tmp_path: Path, postgres_url: str, redis_server: Any, redis_url: str
) -> None:
    tenants = [{"name": "acme", "budget": {"limit_usd": 1000, "period": "lifetime"}}]
    keys = [{"key": KEY, "name": "app", "tenant": "acme"}]
    with fleet(tmp_path, postgres_url, redis_url, SCRIPTS, tenants=tenants, keys=keys) as running:
        before = storm(running, seed=3, requests=100)

        async def frozen_in_the_middle() -> list[Answer]:
            chance = random.Random(4)
            async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
                urls = [each.base_url for each in running.gateways]
                tasks = [asyncio.create_task(ask(session, urls[n % GATEWAYS], chance)) for n in range(100)]
                await asyncio.sleep(0.1)
                redis_server.process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(3)
                finally:
                    redis_server.process.send_signal(signal.SIGCONT)
                return await asyncio.gather(*tasks)

        during = asyncio.run(frozen_in_the_middle())
        after = storm(running, seed=5, requests=100)
        answers = [*before, *during, *after]
        running.settle(len(answers))
        ((charged,),) = running.rows("SELECT sum(charge_pico) FROM usage_events")
        deadline = time.monotonic() + 60
        while (left := sum(running.counters("budget-").values())) != charged:
            assert time.monotonic() < deadline, f"the counter is {left - charged} pico-USD off"
            time.sleep(0.5)
        assert running.gateways[0].json("ledger", "verify")["ok"]
