"""Prices from the book through a running gateway: changes in their moment, tiers by what the reply says, fixed prices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.billing.prices.choose import Price
from gateway.billing.prices.queries import prices_of, write_prices
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from tests.backends import PostgresServer
from tests.pricing import pair
from tests.running import KEY, Gateway, Upstream, gateway, model, upstream

TOKENS = {"input": 1000, "output": 100}
LONG = {"input": 5000, "output": 100}
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
SCRIPTS: dict[str, Any] = {
    "plain": {"reply": "Paris.", "tokens": TOKENS},
    "quick": {"reply": "Paris.", "tokens": TOKENS, "service_tier": "priority"},
    "long": {"reply": "Paris.", "tokens": LONG},
    "changing": {"reply": "Paris.", "tokens": TOKENS},
    "slow": {"reply": "a b c d", "tokens": TOKENS, "first_token_seconds": 0.1, "per_token_seconds": 2.0},
}


def book() -> list[Price]:
    """One list for the four scripts under one name each: two context tiers, two service tiers."""
    made = []
    now = datetime.now(UTC)
    for name in SCRIPTS:
        each = {"model": f"book/{name}", "owner": "somebody", "valid_from": now}
        made += [
            *pair(1, 10, **each),
            *pair(2, 20, **each, service_tier="priority"),
            *pair(3, 30, **each, least_tokens=5000),
        ]
    made += pair(7, 70, book="tenant", owner="acme", model="plain", valid_from=now)
    return made


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    with upstream(SCRIPTS) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('database') / 'penstock.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    server.execute("CREATE DATABASE end_to_end_prices")
    return server.url("end_to_end_prices")


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Database]:
    opened = connect(url)
    migrate(opened)
    added = book()
    write_prices(opened, added, [], added[0].valid_from)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def running(
    scripted: Upstream, database: Database, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    models = [
        model(name, "standard", scripted.url, price="book", book={"model": f"book/{name}"}, max_output=1000)
        for name in SCRIPTS
    ]
    tenants = [
        {"name": "acme", "price_plan": {"markup_percent": 50}},
        {"name": "marked", "price_plan": {"markup_percent": 20}},
    ]
    keys = [
        {"key": KEY, "name": "test"},
        {"key": "sk-acme-0123456789", "name": "acme", "tenant": "acme"},
        {"key": "sk-marked-0123456789", "name": "marked", "tenant": "marked"},
    ]
    config = {"models": models, "tenants": tenants, "keys": keys}
    with gateway(tmp_path_factory.mktemp("gateway"), config, DATABASE_URL=url) as started:
        yield started


def ask(running: Gateway, name: str, key: str = KEY, **options: Any) -> tuple[str, Decimal]:
    """Ask once: the request's id and what its header says it cost."""
    with openai.OpenAI(base_url=running.base_url, api_key=key, max_retries=0) as client:
        reply = client.chat.completions.with_raw_response.create(model=name, messages=QUESTION, **options)
    return reply.headers["x-penstock-request-id"], Decimal(reply.headers["x-penstock-cost-usd"])


def test_a_request_is_priced_from_the_book_and_names_its_rows(running: Gateway, database: Database) -> None:
    request_id, cost = ask(running, "plain", max_tokens=200)
    assert cost == Decimal("0.002")
    [attempt] = running.event(request_id)["attempts"]
    rows = prices_of(database, ["book/plain"], datetime.now(UTC))
    named = [row.id for row in rows if (row.service_tier, row.least_tokens) == ("default", 0)]
    assert attempt["cost_source"] == attempt["charge_source"] == f"book {','.join(map(str, sorted(named)))}"  # type: ignore[type-var]
    assert attempt["service_tier"] is None
    assert {line["meter"]: line["usd_per_million"] for line in attempt["cost"]} == {"input": "1", "output": "10"}


def test_the_tier_that_the_reply_names_decides_the_price_streamed_or_not(running: Gateway) -> None:
    request_id, cost = ask(running, "quick", max_tokens=200)
    assert cost == Decimal("0.004")
    with openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client:
        opened = client.chat.completions.with_raw_response.create(model="quick", messages=QUESTION, stream=True)
        streamed_id = opened.headers["x-penstock-request-id"]
        for _ in opened.parse():
            pass
    for each in (request_id, streamed_id):
        event = running.event(each)
        assert event["cost_pico"] == 4_000_000_000
        assert event["attempts"][0]["service_tier"] == "priority"
        assert event["hold_pico"] >= event["charge_pico"]


def test_a_long_request_is_repriced_as_a_whole(running: Gateway) -> None:
    _, cost = ask(running, "long", max_tokens=200)
    assert cost == Decimal("0.018")  # 5000 x 3 and 100 x 30 USD per million: the tier begins with its threshold


def test_a_markup_and_a_fixed_price_are_what_their_tenants_pay(running: Gateway) -> None:
    marked_id, marked = ask(running, "plain", "sk-marked-0123456789", max_tokens=200)
    fixed_id, fixed = ask(running, "plain", "sk-acme-0123456789", max_tokens=200)
    assert (marked, fixed) == (Decimal("0.0024"), Decimal("0.014"))
    for each in (marked_id, fixed_id):
        assert running.event(each)["cost_pico"] == 2_000_000_000
    assert running.event(marked_id)["attempts"][0]["charge_source"].endswith(" +20%")


def test_a_scheduled_change_takes_effect_in_its_moment_and_not_for_what_began_before(
    running: Gateway, database: Database
) -> None:
    now = datetime.now(UTC)
    at = now + timedelta(seconds=6)  # the slow stream begins before it and takes longer than that
    changed = [
        change
        for name in ("changing", "slow")
        for change in pair(5, 50, model=f"book/{name}", owner="somebody", valid_from=at)
    ]
    write_prices(database, changed, [], now)
    assert ask(running, "changing", max_tokens=200)[1] == Decimal("0.002")
    with openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client:
        opened = client.chat.completions.with_raw_response.create(model="slow", messages=QUESTION, stream=True)
        for _ in opened.parse():
            pass
    assert datetime.now(UTC) > at
    late_id, late = ask(running, "changing", max_tokens=200)
    assert late == Decimal("0.01")
    early = running.event(opened.headers["x-penstock-request-id"])
    assert datetime.fromisoformat(early["started_at"]) < at < datetime.fromisoformat(early["finished_at"])
    assert early["cost_pico"] == 2_000_000_000
    assert running.event(late_id)["cost_pico"] == 10_000_000_000
    assert running.command("ledger", "verify").returncode == 0


def refusal(running: Gateway, name: str) -> openai.APIStatusError | None:
    """What a model says that does not answer; None when it answers."""
    try:
        ask(running, name, max_tokens=200)
    except openai.APIStatusError as error:
        return error
    return None


def wait_for(running: Gateway, name: str, *, refused: bool) -> openai.APIStatusError | None:
    """Ask until the model is refused, or until it answers again."""
    deadline = time.monotonic() + 60
    while ((error := refusal(running, name)) is not None) is not refused:
        assert time.monotonic() < deadline, f"{name} is {'not ' if refused else ''}refused for a minute: {error}"
        time.sleep(0.2)
    return error


def test_a_price_that_ends_stops_its_model_and_a_new_one_brings_it_back(running: Gateway, database: Database) -> None:
    now = datetime.now(UTC)
    rows = [row for row in prices_of(database, ["book/long"], now) if row.is_valid(now)]
    write_prices(database, [], rows, now)
    error = wait_for(running, "long", refused=True)
    assert error is not None
    assert (error.status_code, error.code) == (400, "no_candidate")
    assert "it has no price in the price book" in error.message
    now = datetime.now(UTC)
    write_prices(database, pair(1, 10, model="book/long", owner="somebody", valid_from=now), [], now)
    wait_for(running, "long", refused=False)
    assert ask(running, "long", max_tokens=200)[1] == Decimal("0.006")


def test_a_gateway_does_not_start_with_a_model_that_has_no_price(tmp_path: Path, scripted: Upstream) -> None:
    config = {"models": [model("plain", "standard", scripted.url, price="book")]}
    with (
        pytest.raises(AssertionError, match=r"(?s)the gateway ended:.*has no price of 'plain' that is valid now"),
        gateway(tmp_path, config),
    ):
        pass
