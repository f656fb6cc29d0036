"""One reasoning request followed to every place where it is counted; reports of other providers through the same gateway."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.backends import PostgresServer
from tests.running import KEY, Gateway, gateway, model, upstream

GOLDEN = Path(__file__).parents[1] / "gateway" / "metering" / "golden"
QUESTION: Any = [{"role": "user", "content": "How many sisters has Alice?"}]
REPORTED = {
    "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
    "prompt_tokens_details": {"text_tokens": 32, "cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 94},
}  # fmt: skip
PRICE = {"input": 3, "cached_input": 0.75, "output": 15, "reasoning": 20}
# 24 x 3 + 8 x 0.75 + 9 x 15 + 94 x 20, in millionths of a USD, and half as much again for the tenant
COST = {"input": "0.000072", "cache_read": "0.000006", "output": "0.000135", "reasoning": "0.00188"}
REASONING = Decimal("0.00282")
CHARGE = Decimal("0.0031395")


def _others() -> dict[str, dict[str, Any]]:
    """A report of each native convention, from the golden ones, and what must come out."""
    wanted = {
        "anthropic": "cache reads and writes of both lifetimes are beside input_tokens",
        "gemini": "prompts of tools are beside the prompt",
        "bedrock": "writes by lifetime",
        "deepseek": "reasoning is inside the completion",
    }
    found = {}
    for name, case in wanted.items():
        cases = json.loads((GOLDEN / f"{name}.json").read_text())["cases"]
        found[name] = next(each for each in cases if each["name"] == case)
    return found


OTHERS = _others()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("reasoning")
    url = f"sqlite:///{folder / 'penstock.db'}"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE reasoning")
        url = server.url("reasoning")
    opened = connect(url)
    migrate(opened)
    opened.close()
    scripts: dict[str, Any] = {"thinker": {"reply": "Two.", "usage": REPORTED}}
    scripts |= {name: {"reply": "Yes.", "usage": case["raw"]} for name, case in OTHERS.items()}
    scripts["odd"] = {"reply": "Yes.", "usage": REPORTED | {"total_tokens": 99}}
    scripts["mute"] = {"reply": "One two three.", "usage": {"unknown": "words"}}
    with upstream(scripts) as scripted:
        models = [model(name, "standard", scripted.url, price=PRICE) for name in scripts]
        config = {
            "models": models,
            "tenants": [{"name": "acme", "price_plan": {"markup_percent": 50}}],
            "keys": [{"key": KEY, "name": "app", "tenant": "acme"}],
        }
        with gateway(folder / "gateway", config, DATABASE_URL=url) as started:
            yield started


def ask(running: Gateway, name: str) -> httpx.Headers:
    with openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(model=name, messages=QUESTION).headers


def _streamed(running: Gateway) -> str:
    """Ask for a stream, and the comment before its end that says what it cost."""
    body = {"model": "thinker", "messages": QUESTION, "stream": True}
    with httpx.stream(
        "POST",
        f"{running.base_url}/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {KEY}"},
        timeout=30,
    ) as reply:
        return next(line for line in reply.read().decode().splitlines() if line.startswith(": x-penstock"))


def test_reasoning_is_its_own_meter_in_headers_ledger_usage_exports_and_metrics(
    running: Gateway, tmp_path: Path
) -> None:
    headers = ask(running, "thinker")
    assert Decimal(headers["x-penstock-cost-usd"]) == CHARGE
    assert Decimal(headers["x-penstock-cost-reasoning-usd"]) == REASONING
    comment = _streamed(running)
    assert f"x-penstock-cost-reasoning-usd={REASONING}" in comment

    request_id = headers["x-penstock-request-id"]
    event = running.event(request_id)
    [attempt] = event["attempts"]
    assert attempt["raw_usage"] == REPORTED
    assert attempt["usage_problems"] == []
    assert event["buckets"]["reasoning"] == attempt["buckets"]["reasoning"] == 94
    assert {line["meter"]: line["amount_usd"] for line in attempt["cost"]} == COST
    assert sum(entry["amount_pico"] for entry in event["ledger"]) == 0

    row = _usage_of(running, "thinker", requests=2)
    assert (row["buckets"]["reasoning"], row["reasoning_tokens"], row["output_tokens"]) == (188, 188, 206)
    assert Decimal(row["charge_usd"]) == 2 * CHARGE

    period = f"{datetime.now(UTC):%Y-%m}"
    running.command("export", "focus", "--period", period, "--out", str(tmp_path))
    running.command("export", "csv", "--period", period, "--out", str(tmp_path))
    [focus] = tmp_path.glob("focus-*/cost_and_usage*.csv")
    with focus.open(newline="") as file:
        rows = [each for each in csv.DictReader(file) if each["SkuMeter"] == "Reasoning Tokens"]
    thought = [each for each in rows if "thinker" in each["SkuId"]]
    assert sum(Decimal(each["BilledCost"]) for each in thought) == 2 * REASONING
    assert sum(Decimal(each["ConsumedQuantity"]) for each in thought) == 188
    [usage] = tmp_path.glob("usage-*/usage*.csv")
    with usage.open(newline="") as file:
        [exported] = [each for each in csv.DictReader(file) if each["request_id"] == request_id]
    assert exported["reasoning"] == "94"

    metrics = httpx.get(f"{running.url}/metrics", timeout=60).text
    assert 'penstock_tokens_total{meter="reasoning",model="thinker"} 188.0' in metrics
    assert running.command("ledger", "verify").returncode == 0


def _usage_of(running: Gateway, name: str, requests: int) -> dict[str, Any]:
    """What `penstock usage` says of a model, once so many requests have arrived."""
    deadline = time.monotonic() + 60
    while True:
        rows = running.json("usage", "--group-by", "model")["rows"]
        found: list[dict[str, Any]] = [row for row in rows if row["model"] == name]
        if found and found[0]["requests"] == requests:
            return found[0]
        assert time.monotonic() < deadline, rows


@pytest.mark.parametrize("name", OTHERS)
def test_another_provider_s_report_arrives_as_its_golden_buckets(running: Gateway, name: str) -> None:
    [attempt] = running.event(ask(running, name)["x-penstock-request-id"])["attempts"]
    assert {meter: count for meter, count in attempt["buckets"].items() if count} == OTHERS[name]["buckets"]
    assert attempt["raw_usage"] == OTHERS[name]["raw"]
    assert attempt["service_tier"] == OTHERS[name]["service_tier"]
    assert not attempt["estimated"]


def test_a_report_that_contradicts_itself_is_billed_marked_and_explained(running: Gateway) -> None:
    event = running.event(ask(running, "odd")["x-penstock-request-id"])
    assert event["estimated"]
    assert event["attempts"][0]["usage_problems"] == [
        "total_tokens is 99, and its parts are 32 and 9",
        "94 reasoning tokens are more than the output of 9",
    ]
    assert event["buckets"]["reasoning"] == 94
    metrics = httpx.get(f"{running.url}/metrics", timeout=60).text
    assert 'penstock_estimated_usage_total{model="odd",provider="openai"} 1.0' in metrics


def test_an_answer_whose_report_cannot_be_read_is_estimated_and_not_free(running: Gateway) -> None:
    headers = ask(running, "mute")
    assert Decimal(headers["x-penstock-cost-usd"]) > 0
    event = running.event(headers["x-penstock-request-id"])
    assert event["estimated"]
    # 27 characters of the question and 14 of the answer, at four to a token
    assert (event["buckets"]["input"] > 0, event["buckets"]["output"]) == (True, 4)
    assert event["attempts"][0]["usage_problems"] == ["neither input nor output is counted"]
