"""kill -9 in the middle of traffic: what a client received in full is billed once; what died is released, not lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest

from gateway.metering.records import encode
from tests.backends import PostgresServer
from tests.running import KEY, Gateway, gateway, model, upstream
from tests.usage import event

TOKENS = {"input": 100, "output": 50}
CHARGE = 100 * 1_000_000 + 50 * 2_000_000
"""Pico-USD of one reply: 100 tokens at 1 and 50 at 2 USD per million."""


def ask(running: Gateway, stop: threading.Event, finished: list[str], stream: bool) -> None:
    """Send requests one after the other until told to stop; keep the ids of those received to the last byte."""
    client = openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0, timeout=60)
    while not stop.is_set():
        try:
            with client.chat.completions.with_streaming_response.create(
                model="slow" if stream else "quick", messages=[{"role": "user", "content": "hello"}], stream=stream
            ) as raw:
                if stream:
                    text = "".join(raw.iter_lines())
                    complete = "[DONE]" in text
                else:
                    complete = '"finish_reason"' in raw.text()
            if complete:
                finished.append(raw.headers["x-penstock-request-id"])
        except Exception:  # the gateway dies under it; every form of that is fine
            time.sleep(0.05)


def every_event(running: Gateway) -> Iterator[dict[str, Any]]:
    """All metered requests, page by page."""
    page = running.admin("requests?limit=500")
    yield from page["requests"]
    while page["next"]:
        page = running.admin(f"requests?limit=500&before={quote(page['next'])}")
        yield from page["requests"]


@pytest.fixture
def configuration() -> Iterator[dict[str, Any]]:
    scripts = {
        "quick": {"reply": "hi", "tokens": TOKENS},
        "slow": {
            "behaviour": "slow", "reply": "one two three four", "tokens": TOKENS,
            "first_token_seconds": 0.05, "per_token_seconds": 0.05,
        },
    }  # fmt: skip
    with upstream(scripts) as running:
        yield {"models": [model("quick", "economy", running.url), model("slow", "economy", running.url)]}


def test_a_killed_gateway_bills_every_finished_request_exactly_once(
    tmp_path: Path, configuration: dict[str, Any], database_url: str
) -> None:
    with gateway(tmp_path, configuration, DATABASE_URL=database_url) as running:
        finished: list[str] = []
        for _ in range(2):
            stop = threading.Event()
            threads = [
                threading.Thread(target=ask, args=(running, stop, finished, index % 2 == 0)) for index in range(8)
            ]
            for thread in threads:
                thread.start()
            time.sleep(2)
            running.kill()
            stop.set()
            for thread in threads:
                thread.join()
            running.start()
        assert len(finished) > 50
        running.event(finished[-1])
        events = {event["request_id"]: event for event in every_event(running)}
        assert len(set(finished)) == len(finished)
        assert set(finished) <= set(events)
        assert {events[request_id]["charge_pico"] for request_id in finished} == {CHARGE}
        assert {events[request_id]["outcome"] for request_id in finished} == {"completed"}
        total = running.json("usage", "--group-by", "outcome")
        by_outcome = {row["outcome"]: row for row in total["rows"]}
        # Requests in flight at the kill may have been settled before their last byte left, so at least as many.
        assert by_outcome["completed"]["requests"] >= len(finished)
        assert by_outcome["interrupted"]["requests"] > 0
        assert by_outcome["interrupted"]["charge_pico"] == 0
        verified = running.json("ledger", "verify")
        assert verified["ok"] is True, verified


def test_a_budget_remembers_what_was_still_in_the_spool_when_everything_was_killed(
    tmp_path: Path, configuration: dict[str, Any], postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.split("/")[3].partition("?")[0]
    # A reply costs 200 microdollars and may cost up to about 300, so there is room for four of them.
    budget = {"limit_usd": 0.001, "period": "lifetime"}
    keys = [{"key": KEY, "name": "test", "budget": budget}]
    question = {"model": "quick", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
    with gateway(tmp_path, {**configuration, "keys": keys}, DATABASE_URL=postgres_url) as running:
        client = openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0, timeout=20)
        client.chat.completions.create(**question)  # the first request of a budget asks the database
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        for _ in range(3):
            client.chat.completions.create(**question)
        with pytest.raises(openai.RateLimitError, match="Budget of key"):
            client.chat.completions.create(**question)
        running.kill()
        # Much of somebody else that is delivered first, so that a gateway that does not wait starts too early.
        backlog = b"".join(encode(event(tenant="other", key_id="other")) for _ in range(10_000))
        (running.data_dir / "spool" / "0-backlog.000001.spool").write_bytes(backlog)
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        running.start()
        with pytest.raises(openai.RateLimitError, match="Budget of key"):
            client.chat.completions.create(**question)
        verified = running.json("ledger", "verify")
        assert verified["ok"] is True, verified
        assert "delivering the usage that the last run left in the spool" in running.log
