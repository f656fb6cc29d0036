"""Redis or PostgreSQL frozen or gone before, during and after a hold: what docs/operations.md promises for each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest
import redis

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.backends import PostgresServer, RedisServer, running_postgres, running_redis
from tests.running import KEY, Gateway, Upstream, gateway, model, upstream

SCRIPTS: dict[str, Any] = {
    "quick": {"reply": "hello there"},
    "slow": {"behaviour": "slow", "reply": "one two three four", "first_token_seconds": 0.05, "per_token_seconds": 0.7},
}
LENIENT = "sk-lenient-0123456789abcdef"
"""The key of a tenant whose requests may go on for a while without their counters."""
ALLOWANCE = 500_000_000_000
"""Pico-USD it may hold or be charged at once then: a few requests, as one holds more than a tenth of it."""
MESSAGES: Any = [{"role": "user", "content": "hello"}]
Fault = Callable[[], AbstractContextManager[None]]


@dataclass
class Installation:
    """A gateway with a Redis and a PostgreSQL that only it uses, so that they may be broken."""

    gateway: Gateway
    upstream: Upstream
    postgres: PostgresServer
    redis: RedisServer

    def ask(self, name: str = "quick", key: str = KEY, **options: Any) -> httpx.Response:
        """One plain request, as it comes over the wire."""
        body = {"model": name, "messages": MESSAGES, "max_completion_tokens": 20, **options}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30)

    @contextmanager
    def stream(self) -> Iterator[Iterator[str]]:
        """A stream whose first chunk has come: its hold is taken and not yet settled. Iterates over the rest."""
        client = openai.OpenAI(base_url=self.gateway.base_url, api_key=KEY, max_retries=0, timeout=30)
        with client, client.chat.completions.create(model="slow", messages=MESSAGES, stream=True) as chunks:
            next(chunks)
            yield (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def counter(self) -> int:
        """What the budget's counter stands at, pico-USD."""
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            names = list(client.scan_iter("{penstock}:budget-*"))
            return sum(int(client.get(name) or 0) for name in names)

    def charged(self) -> int:
        """What SQL says was charged, pico-USD."""
        with psycopg.connect(self.postgres.url("faults")) as connection:
            row = connection.execute("SELECT coalesce(sum(charge_pico), 0) FROM usage_events").fetchone()
            assert row is not None
            return int(row[0])

    def ask_until_refused(self) -> list[httpx.Response]:
        """What the lenient tenant is answered until it is refused for the first time, and that refusal."""
        answers: list[httpx.Response] = []
        while not answers or answers[-1].status_code == 200:
            answers.append(self.ask(key=LENIENT))
            assert len(answers) < 200, "nothing bounds what goes on without counters"
        return answers

    def held_without_store(self) -> float:
        """Requests that went on while the counters could not be asked."""
        metrics = httpx.get(self.gateway.base_url.removesuffix("/v1") + "/metrics").text
        [held] = [line for line in metrics.splitlines() if line.startswith("penstock_held_without_store_total ")]
        return float(held.split()[1])

    def calls(self) -> int:
        """Calls that reached the upstream."""
        return sum(each["calls"] for each in self.upstream.calls()["models"].values())

    def wait(self, true: Callable[[], bool], why: str) -> None:
        """Until something is so."""
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, f"{why}\n{self.gateway.log[-3000:]}"
            time.sleep(0.2)

    def agrees(self) -> bool:
        """Whether all that was answered is charged, and the counter says the same as SQL, nothing held."""
        with psycopg.connect(self.postgres.url("faults")) as connection:
            row = connection.execute("SELECT count(*) FROM holds WHERE state = 'open'").fetchone()
        return row == (0,) and self.counter() == self.charged()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with running_postgres() as postgres, running_redis() as store, upstream(SCRIPTS) as up:
        postgres.execute("CREATE DATABASE faults")
        url = postgres.url("faults")
        migrated = connect(url)
        migrate(migrated)
        migrated.close()
        budget = {"limit_usd": 1000, "period": "lifetime"}
        config = {
            "models": [model(name, "economy", up.url, price={"input": 1000, "output": 2000}) for name in SCRIPTS],
            "tenants": [
                {"name": "acme", "budget": budget},
                {"name": "lenient", "budget": budget, "estimate": {"without_store_usd": ALLOWANCE / 10**12}},
            ],
            "keys": [
                {"key": KEY, "name": "app", "tenant": "acme"},
                {"key": LENIENT, "name": "app", "tenant": "lenient"},
            ],
        }
        with gateway(tmp_path, config, DATABASE_URL=url, REDIS_URL=store.url) as running:
            yield Installation(running, up, postgres, store)


@pytest.fixture(params=["frozen", "gone"])
def redis_fault(installation: Installation, request: pytest.FixtureRequest) -> Fault:
    """Breaks Redis for the length of a block; a Redis that is gone comes back empty."""

    @contextmanager
    def frozen() -> Iterator[None]:
        installation.redis.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            installation.redis.process.send_signal(signal.SIGCONT)

    @contextmanager
    def gone() -> Iterator[None]:
        installation.redis.process.kill()
        installation.redis.process.wait()
        try:
            yield
        finally:
            context = running_redis(installation.redis.port)
            request.addfinalizer(lambda: context.__exit__(None, None, None))
            installation.redis = context.__enter__()

    return frozen if request.param == "frozen" else gone


@pytest.fixture(params=["frozen", "gone"])
def postgres_fault(installation: Installation, request: pytest.FixtureRequest) -> Fault:
    """Breaks PostgreSQL for the length of a block."""
    return installation.postgres.frozen if request.param == "frozen" else installation.postgres.gone


def test_without_redis_nothing_is_held_nothing_is_called_and_the_refusal_says_when_to_try_again(
    installation: Installation, redis_fault: Fault
) -> None:
    assert installation.ask().status_code == 200
    installation.wait(installation.agrees, "the first request never settled")
    calls = installation.calls()
    with redis_fault():
        refused = installation.ask()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        assert "Redis" in refused.json()["error"]["message"]
        assert installation.calls() == calls, "an upstream was called without a hold"
    installation.wait(lambda: installation.ask().status_code == 200, "requests are refused although Redis is back")
    installation.wait(installation.agrees, "the counter is not what was charged")


def test_redis_that_breaks_during_a_request_costs_nobody_anything(
    installation: Installation, redis_fault: Fault
) -> None:
    with installation.stream() as rest, redis_fault():
        assert "".join(rest).endswith("four")
        installation.wait(lambda: installation.charged() > 0, "the stream was never charged")
    installation.wait(lambda: installation.ask().status_code == 200, "requests are refused although Redis is back")
    installation.wait(installation.agrees, "the counter is not what was charged")
    time.sleep(1.5)  # a correction that waited for Redis is made within this time, and must not be made twice
    assert installation.agrees()


def test_redis_that_breaks_between_requests_changes_no_budget(installation: Installation, redis_fault: Fault) -> None:
    for _ in range(5):
        assert installation.ask().status_code == 200
    installation.wait(installation.agrees, "the requests never settled")
    spent = installation.charged()
    with redis_fault():
        time.sleep(0.5)
    installation.wait(lambda: installation.ask().status_code == 200, "requests are refused although Redis is back")
    installation.wait(installation.agrees, "the counter is not what was charged")
    assert installation.counter() > spent


def test_without_postgresql_known_keys_are_served_and_nothing_is_lost(
    installation: Installation, postgres_fault: Fault
) -> None:
    assert installation.ask().status_code == 200
    installation.wait(installation.agrees, "the first request never settled")
    before = installation.charged()
    with postgres_fault():
        assert [installation.ask().status_code for _ in range(5)] == [200] * 5
    installation.wait(lambda: installation.charged() == 6 * before, "what was served meanwhile is not charged once")
    installation.wait(installation.agrees, "the counter is not what was charged")


def test_postgresql_that_breaks_during_a_request_is_told_of_it_later_once(
    installation: Installation, postgres_fault: Fault
) -> None:
    with installation.stream() as rest, postgres_fault():
        assert "".join(rest).endswith("four")
    installation.wait(lambda: installation.charged() > 0, "the stream was never charged")
    installation.wait(installation.agrees, "the counter is not what was charged")
    assert installation.gateway.json("ledger", "verify")["ok"]


def test_a_budget_without_a_counter_fails_closed_while_postgresql_is_away(
    installation: Installation, postgres_fault: Fault
) -> None:
    assert installation.ask().status_code == 200
    installation.wait(installation.agrees, "the first request never settled")
    with redis.Redis.from_url(installation.redis.url) as client:
        client.flushall()
    with postgres_fault():
        refused = installation.ask()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert int(refused.headers["retry-after"]) >= 1
    installation.wait(lambda: installation.ask().status_code == 200, "requests are refused although SQL is back")
    installation.wait(installation.agrees, "the counter was not rebuilt from SQL")


def check_what_went_on(
    installation: Installation, answers: list[httpx.Response], before: int, held_before: float
) -> None:
    """Once the fault is over: bounded, charged once, and in the counters."""
    *served, refused = answers
    assert len(served) >= 2
    assert all(answer.headers["x-penstock-held-without-store"] == "true" for answer in served)
    assert refused.json()["error"]["code"] == "unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert installation.held_without_store() - held_before == len(served)
    one = before // 2
    # The other tenant's counter is rebuilt as well, so that counters and charges can be compared.
    installation.wait(lambda: installation.ask().status_code == 200, "requests are refused although all is well")
    installation.wait(lambda: installation.charged() == before + one * (len(served) + 1), "not charged once each")
    assert one * len(served) <= ALLOWANCE
    installation.wait(
        lambda: (
            "x-penstock-held-without-store" not in (answer := installation.ask(key=LENIENT)).headers
            and answer.status_code == 200
        ),
        "the allowance is still used although the counters answer",
    )
    installation.wait(installation.agrees, "the counters are not what was charged")
    time.sleep(1.5)  # nothing is brought to the counters a second time
    assert installation.agrees()
    assert installation.gateway.json("ledger", "verify")["ok"]


def test_a_tenant_with_an_allowance_is_served_up_to_it_without_redis(
    installation: Installation, redis_fault: Fault
) -> None:
    assert [installation.ask(key=key).status_code for key in (KEY, LENIENT)] == [200, 200]
    installation.wait(installation.agrees, "the first requests never settled")
    before, held_before = installation.charged(), installation.held_without_store()
    with redis_fault():
        started = time.monotonic()
        answers = installation.ask_until_refused()
        assert time.monotonic() - started < 0.5 * len(answers) + 20, "every request waited for Redis"
        assert "Redis" in answers[-1].json()["error"]["message"]
        assert installation.ask().status_code == 503, "a tenant without an allowance was served"
    check_what_went_on(installation, answers, before, held_before)


def test_a_tenant_with_an_allowance_is_served_up_to_it_while_its_counter_cannot_be_rebuilt(
    installation: Installation, postgres_fault: Fault
) -> None:
    assert [installation.ask(key=key).status_code for key in (KEY, LENIENT)] == [200, 200]
    installation.wait(installation.agrees, "the first requests never settled")
    before, held_before = installation.charged(), installation.held_without_store()
    with redis.Redis.from_url(installation.redis.url) as client:
        client.flushall()
    with postgres_fault():
        answers = installation.ask_until_refused()
        assert installation.ask().status_code == 503, "a tenant without an allowance was served"
    check_what_went_on(installation, answers, before, held_before)
