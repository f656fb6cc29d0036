"""A model without a price behind a policy that holds a maximum: served, held, refused when the budget is full, rated later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.running import KEY, Gateway, gateway, model, upstream

QUESTION: Any = [{"role": "user", "content": "What is new?"}]
CAREFUL = "sk-careful-0123456789"


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("unpriced")
    url = f"sqlite:///{folder / 'penstock.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    opened = connect(url)
    migrate(opened)
    opened.close()
    script = {"reply": "Much.", "tokens": {"input": 1000, "output": 300, "reasoning": 200}}
    with upstream({"new": script, "old": script}) as scripted:
        config = {
            "models": [
                model("new", "economy", scripted.url, price="book", book={"provider": "somebody"}),
                model("old", "premium", scripted.url),
            ],
            "policies": {"trying": {"unpriced": "hold", "unpriced_hold_usd": 0.01, "min_quality": 0}},
            "tenants": [
                {"name": "acme", "policy": "trying", "budget": {"limit_usd": 0.025}},
                {"name": "careful"},
            ],
            "keys": [
                {"key": KEY, "name": "app", "tenant": "acme"},
                {"key": CAREFUL, "name": "careful", "tenant": "careful"},
            ],
        }
        with gateway(folder / "gateway", config, DATABASE_URL=url) as started:
            yield started


def ask(running: Gateway, name: str, key: str = KEY, **options: Any) -> httpx.Headers:
    with openai.OpenAI(base_url=running.base_url, api_key=key, max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(model=name, messages=QUESTION, **options).headers


def test_a_model_without_a_price_is_held_at_the_maximum_and_rated_when_it_has_one(running: Gateway) -> None:
    assert "has no price of 'new'" in running.log, "a warning at the start"
    with pytest.raises(openai.APIStatusError, match="it has no price in the price book"):
        ask(running, "new", CAREFUL)
    first, second = ask(running, "new"), ask(running, "new")
    assert first["x-penstock-held-usd"] == second["x-penstock-held-usd"] == "0.01"
    assert "x-penstock-cost-usd" not in first
    with pytest.raises(openai.RateLimitError) as refused:
        ask(running, "new")
    assert refused.value.code == "budget_exceeded"
    # auto compares with what would be held, and takes what certainly costs less
    assert ask(running, "auto", max_tokens=5)["x-penstock-model"] == "old"

    detail = running.event(first["x-penstock-request-id"])
    assert (detail["charge_usd"], detail["buckets"]["reasoning"]) == ("0", 200)
    assert detail["attempts"][0]["charge_source"] == "unpriced"
    assert detail["hold"]["state"] == "open"
    running.event(second["x-penstock-request-id"])
    shown = running.json("prices", "show", "new", "--tenant", "acme")
    assert [each["priced"] for each in shown["deployments"]] == [False]
    assert running.json("prices", "rate") == {"rated": 0, "cost_usd": "0", "charge_usd": "0", "waiting": {"new": 2}}

    for meter, usd in (("input", "2"), ("output", "10")):
        arguments = ("--provider", "somebody", "--meter", meter, "--usd-per-million", usd)
        running.command("prices", "set", "new", *arguments)
    example = running.json("prices", "show", "new", "--tenant", "acme", "--input", "1000", "--output", "300")
    assert example["deployments"][0]["example"]["charge_usd"] == "0.005"
    rated = running.json("prices", "rate")
    assert (rated["rated"], rated["waiting"], Decimal(rated["charge_usd"])) == (2, {}, Decimal("0.01"))
    assert running.json("prices", "rate")["rated"] == 0
    [row] = [row for row in running.json("usage", "--group-by", "model")["rows"] if row["model"] == "new"]
    assert (row["requests"], row["reasoning_tokens"], Decimal(row["charge_usd"])) == (2, 400, Decimal("0.01"))
    assert running.event(first["x-penstock-request-id"])["hold"]["state"] == "settled"
    assert running.command("ledger", "verify").returncode == 0
    _priced_from_now_on(running)


def _priced_from_now_on(running: Gateway) -> None:
    """The gateway sees the price within seconds, and charges it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            headers = ask(running, "new", CAREFUL)
            break
        except openai.APIStatusError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert headers["x-penstock-cost-usd"] == "0.005"
