"""The main job over real sockets with the official client: answered, routed, metered, billed; on both pairs of backends."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.backends import PostgresServer, RedisServer
from tests.running import KEY, Gateway, Upstream, gateway, model, upstream

TOKENS = {"input": 1000, "output": 300, "reasoning": 100, "cached": 400}
# 600 uncached x 1 + 400 cached x 0.1 + 200 visible x 2 + 100 reasoning x 4 USD per million
COST = Decimal("0.00144")
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]

SCRIPTS: dict[str, Any] = {
    "small": {"reply": "The capital of France is Paris.", "tokens": TOKENS},
    "large": {"reply": "Paris, of course.", "tokens": TOKENS, "reasoning": "France, hm."},
    "broken": {"behaviour": "flaky", "fail_every": 1},
    "busy": {"behaviour": "rate_limited", "retry_after": 7},
    "cut": {"behaviour": "cut", "reply": "one two three four five six", "break_after": 3},
    "wrong": {"behaviour": "wrong_json", "break_after": 0},
    "rude": {"behaviour": "refuse"},
    "silent": {"reply": "no usage here", "usage": "omit"},
    "tools": {"tool_call": {"name": "look_up", "arguments": '{"city": "Paris"}'}},
    "slow": {"behaviour": "slow", "reply": "a b c d e f g h", "first_token_seconds": 0.05, "per_token_seconds": 0.1},
}


@pytest.fixture(scope="module")
def scripted() -> Iterator[Upstream]:
    with upstream(SCRIPTS) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite and memory", "postgresql and redis"])
def running(
    scripted: Upstream, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    environment: dict[str, str] = {}
    if request.param == "postgresql and redis":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE chat")
        store: RedisServer = request.getfixturevalue("redis_server")
        environment = {"DATABASE_URL": server.url("chat"), "REDIS_URL": store.url}
        migrated = connect(environment["DATABASE_URL"])
        migrate(migrated)
        migrated.close()

    def at(name: str, tier: str, **changes: Any) -> dict[str, Any]:
        return model(name, tier, scripted.url, **changes)

    models = [
        at("small", "economy"),
        at("large", "premium", price={"input": 10, "output": 20}),
        at("standby", "standard", model="broken"),
        at("standby", "standard", model="small", weight=1),
        *(at(name, "deep") for name in ("broken", "busy", "cut", "wrong", "rude", "silent", "tools", "slow")),
        model("nowhere", "deep", "http://127.0.0.1:9/v1"),
    ]
    tenants = [{"name": "acme", "price_plan": {"markup_percent": 50}}, {"name": "poor", "budget": {"limit_usd": 0.001}}]
    keys = [
        {"key": KEY, "name": "test"},
        {"key": "sk-acme-0123456789", "name": "acme-app", "tenant": "acme"},
        {"key": "sk-poor-0123456789", "name": "poor-app", "tenant": "poor"},
        {"key": "sk-scoped-0123456789", "name": "scoped", "models": ["auto", "small"], "tiers": ["economy"]},
        {"key": "sk-limited-0123456789", "name": "limited", "limits": {"requests_per_minute": 2}},
    ]
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(
        folder, {"models": models, "keys": keys, "tenants": tenants, "max_body_bytes": 200_000}, **environment
    ) as started:
        yield started


def client(running: Gateway, key: str = KEY, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.base_url, api_key=key, max_retries=0, timeout=30, **options)


def test_a_plain_answer_carries_its_price_and_lands_in_the_ledger_to_the_pico_dollar(running: Gateway) -> None:
    raw = client(running).chat.completions.with_raw_response.create(model="small", messages=QUESTION, max_tokens=400)
    completion = raw.parse()
    assert completion.choices[0].message.content == "The capital of France is Paris."
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 100
    assert Decimal(raw.headers["x-penstock-cost-usd"]) == COST
    assert Decimal(raw.headers["x-penstock-cost-reasoning-usd"]) == Decimal("0.0004")
    assert (raw.headers["x-penstock-model"], raw.headers["x-penstock-tier"]) == ("small", "economy")
    assert 0 <= float(raw.headers["x-penstock-difficulty"]) <= 1
    event = running.event(raw.headers["x-penstock-request-id"])
    assert event["outcome"] == "completed"
    buckets = {name: quantity for name, quantity in event["buckets"].items() if quantity}
    assert buckets == {"input": 600, "cache_read": 400, "output": 200, "reasoning": 100}
    assert event["charge_pico"] == event["cost_pico"] == int(COST * 10**12)
    assert event["estimated"] is False


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_is_relayed_whole_and_metered_whether_or_not_the_client_asks_for_usage(
    running: Gateway, include_usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    with client(running).chat.completions.with_streaming_response.create(
        model="large", messages=QUESTION, stream=True, max_tokens=400, **options
    ) as raw:
        chunks = list(raw.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Paris, of course."
    assert [bool(chunk.usage) for chunk in chunks].count(True) == include_usage
    event = running.event(raw.headers["x-penstock-request-id"])
    assert (event["streamed"], event["buckets"]["reasoning"], event["estimated"]) == (True, 100, False)
    assert event["seconds_to_first_token"] is not None


async def test_the_async_client_streams_too(running: Gateway) -> None:
    asynchronous = openai.AsyncOpenAI(base_url=running.base_url, api_key=KEY, max_retries=0, timeout=30)
    async with asynchronous:
        stream = await asynchronous.chat.completions.create(model="small", messages=QUESTION, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        completion = await asynchronous.chat.completions.create(model="economy", messages=QUESTION)
    assert text == "The capital of France is Paris."
    assert completion.choices[0].message.content


def test_auto_says_why_it_chose_and_what_it_saved(running: Gateway) -> None:
    raw = client(running).chat.completions.with_raw_response.create(
        model="auto:quick",
        messages=QUESTION,
        max_tokens=400,
        extra_body={"penstock": {"tags": ["a"], "session_id": "s1"}},
    )
    assert raw.headers["x-penstock-model"] == "small"
    assert raw.headers["x-penstock-decision"] == "quick: cheapest"
    assert Decimal(raw.headers["x-penstock-saved-usd"]) > 0
    event = running.event(raw.headers["x-penstock-request-id"])
    assert (event["tags"], event["session_id"], event["requested_model"]) == (["a"], "s1", "auto:quick")
    assert {candidate["model"] for candidate in event["explanation"]["candidates"]} >= {"small", "large"}


def test_a_tenants_markup_is_charged_and_the_providers_cost_kept_apart(running: Gateway) -> None:
    raw = client(running, "sk-acme-0123456789").chat.completions.with_raw_response.create(
        model="small", messages=QUESTION, max_tokens=400
    )
    assert Decimal(raw.headers["x-penstock-cost-usd"]) == COST * Decimal("1.5")
    event = running.event(raw.headers["x-penstock-request-id"])
    assert (event["tenant"], event["cost_pico"]) == ("acme", int(COST * 10**12))


def test_tool_calls_and_unknown_fields_pass_through(running: Gateway) -> None:
    completion = client(running).chat.completions.create(
        model="tools",
        messages=QUESTION,
        tools=[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
        extra_body={"a_field_from_the_future": {"x": 1}},
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.arguments == '{"city": "Paris"}'


def test_a_group_falls_back_to_its_other_deployment_and_both_attempts_are_kept(running: Gateway) -> None:
    seen = set()
    for _ in range(12):
        raw = client(running).chat.completions.with_raw_response.create(model="standby", messages=QUESTION)
        event = running.event(raw.headers["x-penstock-request-id"])
        seen.add(tuple(attempt["status"] for attempt in event["attempts"]))
        assert raw.headers["x-penstock-attempts"] == str(len(event["attempts"]))
    assert seen == {("ok",), ("error", "ok")}


REFUSALS = [
    ("broken", openai.InternalServerError, 502, "provider_failed"),
    ("busy", openai.RateLimitError, 429, "provider_rate_limited"),
    ("wrong", openai.InternalServerError, 502, "provider_bad_reply"),
    ("rude", openai.BadRequestError, 400, None),
    ("nowhere", openai.InternalServerError, 502, "provider_unreachable"),
    ("no-such-model", openai.NotFoundError, 404, "model_not_found"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "kind", "status", "code"), REFUSALS, ids=[name for name, *_ in REFUSALS])
def test_a_failing_upstream_is_the_right_sdk_error(
    running: Gateway, name: str, kind: type[openai.APIStatusError], status: int, code: str | None, stream: bool
) -> None:
    with pytest.raises(kind) as error:
        client(running).chat.completions.create(model=name, messages=QUESTION, stream=stream)
    assert error.value.status_code == status
    assert error.value.request_id is not None
    assert error.value.request_id.startswith("req_")
    if code is not None:
        assert error.value.code == code
    if name == "busy":
        assert error.value.response.headers["retry-after"] == "7"


def test_a_stream_that_is_cut_ends_with_an_error_and_is_billed_by_estimate(running: Gateway) -> None:
    with (
        client(running).chat.completions.with_streaming_response.create(
            model="cut", messages=QUESTION, stream=True
        ) as raw,
        pytest.raises(openai.APIError, match=r"ended|closed|cut|broke"),
    ):
        list(raw.parse())
    event = running.event(raw.headers["x-penstock-request-id"])
    assert (event["outcome"], event["error_code"], event["estimated"]) == ("cut", "stream_cut", True)
    assert event["charge_pico"] > 0


def test_an_upstream_that_reports_no_usage_is_billed_by_a_flagged_estimate(running: Gateway) -> None:
    raw = client(running).chat.completions.with_raw_response.create(model="silent", messages=QUESTION)
    event = running.event(raw.headers["x-penstock-request-id"])
    assert (event["outcome"], event["estimated"]) == ("completed", True)
    assert event["buckets"]["output"] == 4  # "no usage here" has 13 characters


def test_a_client_that_leaves_is_metered_to_the_last_token(running: Gateway) -> None:
    stream = client(running).chat.completions.create(model="slow", messages=QUESTION, stream=True)
    request_id = stream.response.headers["x-penstock-request-id"]
    next(iter(stream))
    stream.close()
    event = running.event(request_id)
    assert (event["disconnected"], event["outcome"], event["estimated"]) == (True, "completed", False)
    assert event["buckets"]["output"] > 1


@pytest.mark.parametrize(
    ("key", "status", "code"), [("sk-wrong-key", 401, "invalid_api_key"), ("", 401, "missing_api_key")]
)
def test_a_wrong_or_missing_key_is_unauthenticated(running: Gateway, key: str, status: int, code: str) -> None:
    headers = {} if key else {"authorization": ""}
    with pytest.raises(openai.AuthenticationError) as error:
        client(running, key or "x", default_headers=headers).chat.completions.create(model="small", messages=QUESTION)
    assert (error.value.status_code, error.value.code) == (status, code)


def test_a_scope_limits_models_and_tiers_and_what_is_listed(running: Gateway) -> None:
    scoped = client(running, "sk-scoped-0123456789")
    assert [listed.id for listed in scoped.models.list()] == ["auto", "small"]
    assert scoped.models.retrieve("small").id == "small"
    for name in ("large", "premium"):
        with pytest.raises(openai.PermissionDeniedError) as error:
            scoped.chat.completions.create(model=name, messages=QUESTION)
        assert error.value.code in {"model_not_allowed", "tier_not_allowed"}
    raw = scoped.chat.completions.with_raw_response.create(model="auto", messages=QUESTION)
    assert raw.headers["x-penstock-model"] == "small"


def test_a_budget_refuses_what_could_exceed_it_and_tells_the_client_not_to_retry(running: Gateway) -> None:
    poor = client(running, "sk-poor-0123456789")
    with pytest.raises(openai.RateLimitError) as error:
        poor.chat.completions.create(model="large", messages=QUESTION, max_tokens=1000)
    assert error.value.code == "budget_exceeded"
    assert error.value.response.headers["x-should-retry"] == "false"
    assert "tenant 'poor'" in error.value.message
    assert poor.chat.completions.create(model="small", messages=QUESTION, max_tokens=10).choices


def test_a_rate_limit_refuses_the_third_request_of_a_minute_and_says_when_to_come_back(running: Gateway) -> None:
    limited = client(running, "sk-limited-0123456789")
    refused = None
    for _ in range(5):  # the window may turn once between requests
        try:
            limited.chat.completions.create(model="small", messages=QUESTION, max_tokens=10)
        except openai.RateLimitError as error:
            refused = error
            break
    assert refused is not None
    assert refused.code == "limit_exceeded"
    assert 1 <= int(refused.response.headers["retry-after"]) <= 60


def test_usage_and_ledger_commands_agree_with_the_upstreams_own_count(running: Gateway, scripted: Upstream) -> None:
    before = settled(running, scripted)
    for stream in (False, True):
        for _ in range(5):
            list(
                client(running).chat.completions.create(model="small", messages=QUESTION, stream=stream, max_tokens=400)
            )  # type: ignore[call-overload]
    raw = client(running).chat.completions.with_raw_response.create(model="small", messages=QUESTION, max_tokens=400)
    running.event(raw.headers["x-penstock-request-id"])
    after = settled(running, scripted)
    assert after["metered"]["charge_pico"] - before["metered"]["charge_pico"] == 11 * int(COST * 10**12)
    for delivered, metered in (
        ("completed", "requests"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("reasoning_tokens", "reasoning_tokens"),
    ):
        more = after["delivered"][delivered] - before["delivered"][delivered]
        assert more == after["metered"][metered] - before["metered"][metered] > 0, metered
    verified = running.json("ledger", "verify")
    assert verified["ok"] is True


def settled(running: Gateway, scripted: Upstream) -> dict[str, Any]:
    """The upstream's count and ours for the model `small`."""
    rows = running.json("usage", "--group-by", "model")["rows"]
    return {
        "delivered": scripted.calls()["models"]["small"],
        "metered": next(row for row in rows if row["model"] == "small"),
    }
