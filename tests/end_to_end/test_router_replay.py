"""What replay says of past requests is what happens: the gateway, asked the same under the other floor, does exactly that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.backends import PostgresServer
from tests.running import ADMIN_KEY, KEY, Gateway, Upstream, gateway, model, upstream

SCOPED = "sk-replay-scoped-0123456789"
KINDS = (
    "What is the capital of {thing}?",
    "Write one friendly sentence about {thing}.",
    "Prove that every group of order {number} squared is abelian, then relate the proof to {thing}.",
    "A train of {number} wagons takes {number}.5 hours for {number}0 km. Calculate the minutes for {thing} at twice that.",
    "Which of the following statements about {thing} is not true?\nA. It is old.\nB. It is {number}.\nC. Both\nD. Neither",
    "Explain why the enthalpy of mixing of {thing} and {number} mol of ethanol is negative, with equations.",
    "Fix this function: def f(x): return [y ** {number} for y in x if y is not '{thing}']",
    "Translate '{thing} and {number} friends' into French.",
)
THINGS = ("France", "copper", "the violin", "Jupiter", "a sonnet", "rice", "the Danube", "glass", "whales", "chess")


def prompts(count: int) -> list[str]:
    """Questions of several kinds, all different."""
    return [
        KINDS[number % len(KINDS)].format(thing=THINGS[number % len(THINGS)], number=number + 2)
        for number in range(count)
    ]


def bodies() -> list[dict[str, Any]]:
    """200 plain requests, and some with demands of their own."""
    made = [{"model": "auto", "messages": [{"role": "user", "content": text}]} for text in prompts(200)]
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    for number, body in enumerate(made):
        if number % 20 == 3:
            body["model"] = ("auto:quick", "auto:deep")[number // 20 % 2]
        if number % 20 == 5:
            body["penstock"] = {"min_quality": 0.5 + number / 500}
        if number % 20 == 7:
            body["penstock"] = {"max_cost_usd": 0.002}
            body["max_tokens"] = 5 * number
        if number % 20 == 9:
            body["tools"] = [tool]
        if number % 20 == 11:
            body["penstock"] = {"tier": "standard"}
        if number % 20 == 13:
            body["model"] = ("large", "standard")[number // 20 % 2]
    return made


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    tokens = {"input": 100, "output": 50}
    with upstream(
        {name: {"reply": "An answer.", "tokens": tokens} for name in ("small", "medium", "large")}
    ) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(
    scripted: Upstream, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    environment: dict[str, str] = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE replayed")
        environment = {"DATABASE_URL": server.url("replayed")}
        migrated = connect(environment["DATABASE_URL"])
        migrate(migrated)
        migrated.close()
    config = {
        "models": [
            model("small", "economy", scripted.url, price={"input": 0.1, "output": 0.4}, capabilities=[]),
            model("medium", "standard", scripted.url, price={"input": 0.5, "output": 1.5}),
            model("large", "premium", scripted.url, price={"input": 2.5, "output": 10}),
        ],
        "policies": {"default": {"min_quality": 0.97, "remember": "features"}},
        "keys": [
            {"key": KEY, "name": "test"},
            {"key": SCOPED, "name": "scoped", "tiers": ["economy", "standard"]},
        ],
    }
    with gateway(tmp_path_factory.mktemp("replay"), config, **environment) as started:
        yield started


def send(running: Gateway, key: str, wanted: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(id, model that was asked) of each request, in order; waits until they are in the database."""
    asked = []
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        for body in wanted:
            reply = client.post(f"{running.base_url}/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            asked.append((reply.headers["x-penstock-request-id"], reply.headers["x-penstock-model"]))
    running.event(asked[-1][0])
    return asked


@pytest.fixture(scope="module")
def sent(running: Gateway) -> list[tuple[str, str]]:
    return send(running, KEY, bodies()) + send(running, SCOPED, bodies()[:13])


def shares(result: dict[str, Any], side: str) -> dict[str, float]:
    return {each["model"]: each[side] for each in result["models"] if each[side]}


def counted(models: list[str]) -> dict[str, float]:
    return {name: round(count / len(models), 6) for name, count in Counter(models).items()}


def test_under_the_same_conditions_nothing_moves(running: Gateway, sent: list[tuple[str, str]]) -> None:
    result = running.json("router", "replay")
    assert result["requests"]["replayed"] == result["requests"]["routed"] == 213
    assert result["moved"]["requests"] == 0, result["moves"]
    assert shares(result, "as_routed") == shares(result, "replayed") == counted([name for _, name in sent])
    assert result["cost_usd"]["as_routed"] == result["cost_usd"]["replayed"]
    assert len(shares(result, "as_routed")) == 3, "the prompts must need different models, or this shows nothing"


def test_other_prices_another_policy_and_one_tenant_are_replayed_too(
    running: Gateway, sent: list[tuple[str, str]], tmp_path: Path
) -> None:
    config = yaml.safe_load(running.config.read_text())
    config["models"][2]["price"] = {"input": 0.01, "output": 0.02}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config))
    cheap = running.json("router", "replay", "--config", str(other))
    assert shares(cheap, "replayed")["large"] > shares(cheap, "as_routed")["large"]
    policy = tmp_path / "policy.yaml"
    policy.write_text("objective: quality\n")
    best = running.json("router", "replay", "--policy", str(policy))
    assert best["quality"]["replayed"]["p"] > best["quality"]["as_routed"]["p"]
    assert best["cost_usd"]["change"] > 0


def test_the_admin_api_says_what_the_command_says(running: Gateway, sent: list[tuple[str, str]]) -> None:
    period = {"since": "2020-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"}
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    address = f"{running.url}/admin/api/router/replay"
    refused = httpx.post(address, json=period, headers=headers, timeout=60)
    assert refused.status_code == 400
    assert "at most 366" in refused.json()["error"]["message"]
    far = {"since": "2029-12-01T00:00:00Z", "until": "2030-01-01T00:00:00Z"}
    nothing = httpx.post(address, json=far, headers=headers, timeout=60)
    assert nothing.status_code == 404
    assert "There is nothing to replay" in nothing.json()["error"]["message"]
    by_command = running.json("router", "replay", "--min-quality", "0.6")
    by_api = httpx.post(address, json={"min_quality": 0.6}, headers=headers, timeout=60).json()
    same = ("cost_usd", "quality", "moved", "models", "moves", "examples", "under")
    assert {name: by_api[name] for name in same} == {name: by_command[name] for name in same}


def test_the_card_shows_promises_and_both_curves(running: Gateway, sent: list[tuple[str, str]]) -> None:
    card = running.admin("router")
    assert card["version"] == running.event(sent[0][0])["artifact"]
    assert card["promises"], "the bundled artifact has a calibration sample"
    assert all(each["recorded_kept_low"] <= each["recorded_kept"] for each in card["promises"])
    for curve in card["curve"].values():
        costs = [point["cost_usd_per_1000"] for point in curve["points"]]
        qualities = [point["predicted_quality"] for point in curve["points"]]
        assert costs == sorted(costs)
        assert qualities == sorted(qualities)
    assert card["curve"]["traffic"]["prompts"] == 213


def test_the_card_is_kept_for_a_minute_and_never_of_a_file(running: Gateway, sent: list[tuple[str, str]]) -> None:
    first, again, other = running.admin("router"), running.admin("router"), running.admin("router?confidence=0.9")
    assert first == again, "the period it is about is the same to the microsecond"
    assert other["confidence"] == 0.9
    for name in ("penstock.yaml", "README.md", running.config.name):
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        shown = httpx.get(f"{running.url}/admin/api/router?artifact={name}", headers=headers, timeout=60)
        replayed = httpx.post(
            f"{running.url}/admin/api/router/replay", json={"artifact": name}, headers=headers, timeout=60
        )
        assert [shown.status_code, replayed.status_code] == [400, 400]
        assert all("there is no artifact" in each.json()["error"]["message"] for each in (shown, replayed))


def test_what_replay_predicts_of_a_lower_floor_is_what_happens(running: Gateway, sent: list[tuple[str, str]]) -> None:
    predicted = running.json("router", "replay", "--min-quality", "0.6")
    assert 0 < predicted["moved"]["requests"] < 213
    assert predicted["cost_usd"]["change"] < 0
    assert 1 <= len(predicted["examples"]) <= 10
    assert {each["request_id"] for each in predicted["examples"]} <= {name for name, _ in sent}
    config = yaml.safe_load(running.config.read_text())
    config["policies"]["default"]["min_quality"] = 0.6
    assert running.stop() == 0
    running.config.write_text(yaml.safe_dump(config))
    running.start()
    again = send(running, KEY, bodies()) + send(running, SCOPED, bodies()[:13])
    assert shares(predicted, "replayed") == counted([name for _, name in again])
    expected = {each["request_id"]: each["to"] for each in predicted["examples"]}
    by_first_id = {first: now for (first, _), (_, now) in zip(sent, again, strict=True)}
    assert {name: by_first_id[name] for name in expected} == expected
