"""The main job over real sockets with the official client: answered, routed, metered, billed; on both pairs of backends."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.end_to_end.conftest import COST, QUESTION, Client
from tests.running import KEY, Gateway, Upstream


def test_a_plain_answer_carries_its_price_and_lands_in_the_ledger_exactly(
    chat_gateway: Gateway, client: Client
) -> None:
    raw = client().chat.completions.with_raw_response.create(model="small", messages=QUESTION, max_tokens=400)
    completion = raw.parse()
    assert completion.choices[0].message.content == "The capital of France is Paris."
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 100
    assert Decimal(raw.headers["x-penstock-cost-usd"]) == COST
    assert Decimal(raw.headers["x-penstock-cost-reasoning-usd"]) == Decimal("0.0004")
    assert (raw.headers["x-penstock-model"], raw.headers["x-penstock-tier"]) == ("small", "economy")
    assert 0 <= float(raw.headers["x-penstock-difficulty"]) <= 1
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert event["outcome"] == "completed"
    buckets = {name: quantity for name, quantity in event["buckets"].items() if quantity}
    assert buckets == {"input": 600, "cache_read": 400, "output": 200, "reasoning": 100}
    assert event["charge_pico"] == event["cost_pico"] == int(COST * 10**12)
    assert event["estimated"] is False


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_is_relayed_whole_and_metered_whether_or_not_the_client_asks_for_usage(
    chat_gateway: Gateway, client: Client, include_usage: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    with client().chat.completions.with_streaming_response.create(
        model="large", messages=QUESTION, stream=True, max_tokens=400, **options
    ) as raw:
        chunks = list(raw.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Paris, of course."
    assert [bool(chunk.usage) for chunk in chunks].count(True) == include_usage
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert (event["streamed"], event["buckets"]["reasoning"], event["estimated"]) == (True, 100, False)
    assert event["seconds_to_first_token"] is not None


async def test_the_async_client_streams_too(chat_gateway: Gateway, client: Client) -> None:
    asynchronous = openai.AsyncOpenAI(base_url=chat_gateway.base_url, api_key=KEY, max_retries=0, timeout=30)
    async with asynchronous:
        stream = await asynchronous.chat.completions.create(model="small", messages=QUESTION, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        completion = await asynchronous.chat.completions.create(model="economy", messages=QUESTION)
    assert text == "The capital of France is Paris."
    assert completion.choices[0].message.content


def test_auto_says_why_it_chose_and_what_it_saved(chat_gateway: Gateway, client: Client) -> None:
    raw = client().chat.completions.with_raw_response.create(
        model="auto:quick",
        messages=QUESTION,
        max_tokens=400,
        extra_body={"penstock": {"tags": ["a"], "session_id": "s1"}},
    )
    assert raw.headers["x-penstock-model"] == "small"
    assert raw.headers["x-penstock-decision"] == "quick: cheapest"
    assert Decimal(raw.headers["x-penstock-saved-usd"]) > 0
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert (event["tags"], event["session_id"], event["requested_model"]) == (["a"], "s1", "auto:quick")
    assert {candidate["model"] for candidate in event["explanation"]["candidates"]} >= {"small", "large"}


def test_a_tenants_markup_is_charged_and_the_providers_cost_kept_apart(chat_gateway: Gateway, client: Client) -> None:
    raw = client("sk-acme-0123456789").chat.completions.with_raw_response.create(
        model="small", messages=QUESTION, max_tokens=400
    )
    assert Decimal(raw.headers["x-penstock-cost-usd"]) == COST * Decimal("1.5")
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert (event["tenant"], event["cost_pico"]) == ("acme", int(COST * 10**12))


def test_tool_calls_and_unknown_fields_pass_through(client: Client) -> None:
    completion = client().chat.completions.create(
        model="tools",
        messages=QUESTION,
        tools=[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
        extra_body={"a_field_from_the_future": {"x": 1}},
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.arguments == '{"city": "Paris"}'


def test_a_group_falls_back_to_its_other_deployment_and_both_attempts_are_kept(
    chat_gateway: Gateway, client: Client
) -> None:
    seen = set()
    for _ in range(12):
        raw = client().chat.completions.with_raw_response.create(model="standby", messages=QUESTION)
        event = chat_gateway.event(raw.headers["x-penstock-request-id"])
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
    chat_gateway: Gateway,
    client: Client,
    name: str,
    kind: type[openai.APIStatusError],
    status: int,
    code: str | None,
    stream: bool,
) -> None:
    with pytest.raises(kind) as error:
        client().chat.completions.create(model=name, messages=QUESTION, stream=stream)
    assert error.value.status_code == status
    assert error.value.request_id is not None
    assert error.value.request_id.startswith("req_")
    if code is not None:
        assert error.value.code == code
    if name == "busy":
        assert error.value.response.headers["retry-after"] == "7"


def test_a_stream_that_is_cut_ends_with_an_error_and_is_billed_by_estimate(
    chat_gateway: Gateway, client: Client
) -> None:
    with (
        client().chat.completions.with_streaming_response.create(model="cut", messages=QUESTION, stream=True) as raw,
        pytest.raises(openai.APIError, match=r"ended|closed|cut|broke"),
    ):
        list(raw.parse())
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert (event["outcome"], event["error_code"], event["estimated"]) == ("cut", "stream_cut", True)
    assert event["charge_pico"] > 0


def test_an_upstream_that_reports_no_usage_is_billed_by_a_flagged_estimate(
    chat_gateway: Gateway, client: Client
) -> None:
    raw = client().chat.completions.with_raw_response.create(model="silent", messages=QUESTION)
    event = chat_gateway.event(raw.headers["x-penstock-request-id"])
    assert (event["outcome"], event["estimated"]) == ("completed", True)
    assert event["buckets"]["output"] == 4  # "no usage here" has 13 characters


def test_a_client_that_leaves_is_metered_to_the_last_token(chat_gateway: Gateway, client: Client) -> None:
    stream = client().chat.completions.create(model="slow", messages=QUESTION, stream=True)
    request_id = stream.response.headers["x-penstock-request-id"]
    next(iter(stream))
    stream.close()
    event = chat_gateway.event(request_id)
    assert (event["disconnected"], event["outcome"], event["estimated"]) == (True, "completed", False)
    assert event["buckets"]["output"] > 1


def test_usage_and_ledger_agree_with_the_upstreams_own_count(
    chat_gateway: Gateway, client: Client, scripted: Upstream
) -> None:
    before = settled(chat_gateway, scripted)
    for stream in (False, True):
        for _ in range(5):
            list(client().chat.completions.create(model="small", messages=QUESTION, stream=stream, max_tokens=400))  # type: ignore[call-overload]
    raw = client().chat.completions.with_raw_response.create(model="small", messages=QUESTION, max_tokens=400)
    chat_gateway.event(raw.headers["x-penstock-request-id"])
    after = settled(chat_gateway, scripted)
    assert after["metered"]["charge_pico"] - before["metered"]["charge_pico"] == 11 * int(COST * 10**12)
    for delivered, metered in (
        ("completed", "requests"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("reasoning_tokens", "reasoning_tokens"),
    ):
        more = after["delivered"][delivered] - before["delivered"][delivered]
        assert more == after["metered"][metered] - before["metered"][metered] > 0, metered
    verified = chat_gateway.json("ledger", "verify")
    assert verified["ok"] is True


def settled(chat_gateway: Gateway, scripted: Upstream) -> dict[str, Any]:
    """The upstream's count and ours for the model `small`."""
    rows = chat_gateway.json("usage", "--group-by", "model")["rows"]
    return {
        "delivered": scripted.calls()["models"]["small"],
        "metered": next(row for row in rows if row["model"] == "small"),
    }
