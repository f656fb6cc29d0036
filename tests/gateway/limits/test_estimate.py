"""The bound before a call: never below what the request can cost, and cheap for long prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.limits.estimate import Estimate, limit_to_send, measure_prompt, worst_case
from tests.builders import catalog, model


def estimate(body: dict[str, Any], **changes: Any) -> Estimate:
    made = catalog(model("m", **changes)).models[0]
    return worst_case(body, made, made.price)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("text", ["hello", "ключ", "你好", "🙂🙂", "x" * 10_000])
def test_text_counts_at_least_its_bytes(text: str) -> None:
    empty, full = estimate({"messages": user("")}), estimate({"messages": user(text)})
    assert full.input_tokens - empty.input_tokens == len(text.encode())


def test_everything_the_model_reads_is_counted() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "s" * 100},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "a" * 100}}]},
            {"role": "user", "content": [{"type": "text", "text": "t" * 100}]},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d" * 100, "parameters": {"p" * 100: 1}}}
        ],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"k" * 100: "string"}}},
    }
    assert estimate(body).input_tokens >= 600


def test_options_that_the_model_does_not_read_are_not_counted() -> None:
    plain = estimate({"messages": user("x")})
    assert estimate({"messages": user("x"), "user": "u" * 1000, "metadata": {"m": "m" * 1000}}) == plain


@pytest.mark.parametrize(
    ("limits", "output"),
    [
        ({}, 500),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 7}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"n": 2}, 1000),
        ({"max_tokens": -1}, 500),
        ({"max_tokens": True, "n": "many"}, 500),
        ({"max_tokens": 0}, 500),
    ],
)
def test_the_output_is_bounded_by_what_the_request_allows(limits: dict[str, Any], output: int) -> None:
    assert estimate({"messages": user("x"), **limits}, max_output=500).output_tokens == output


def test_a_known_context_bounds_input_and_each_choice() -> None:
    found = estimate({"messages": user("x" * 10_000), "max_tokens": 10_000, "n": 2}, context=2000)
    assert (found.input_tokens, found.output_tokens) == (2000, 4000)


def test_the_dearest_rate_that_can_apply_is_taken() -> None:
    price = {"input": 1, "cached_input": 0.1, "cache_write": 1.25, "output": 2, "reasoning": 3}
    found = estimate({"messages": user("x"), "max_tokens": 100}, price=price)
    assert found.amount == found.input_tokens * 1_250_000 + 100 * 3_000_000


def test_gpu_time_is_held_for_the_total_deadline() -> None:
    found = estimate({"messages": user("x")}, price={"gpu_second": 0.0006}, deadlines={"total": 10})
    assert found.amount == 6_000_000_000


def test_images_and_audio_count_by_constant_not_by_their_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 10_000, "format": "wav"}}
    price = {"input": 1, "image_input": 10, "audio_input": 40, "output": 1}
    bare = estimate({"messages": user([])}, price=price)
    assert (
        estimate({"messages": user([picture])}, price=price).amount - bare.amount == 3000 * 10_000_000 + 8 * 1_000_000
    )
    assert estimate({"messages": user([sound])}, price=price).amount - bare.amount == 101 * 40_000_000 + 8 * 1_000_000


def test_deep_nesting_chosen_by_a_client_is_walked_without_recursion() -> None:
    nested: Any = "end"
    for _ in range(50_000):
        nested = [nested]
    assert estimate({"messages": user(nested)}).input_tokens > 0


def test_a_body_is_never_changed() -> None:
    body = {"messages": user("x"), "tools": [{"a": [1, 2, {"b": "c"}]}]}
    before = json.dumps(body)
    estimate(body)
    estimate(body)
    assert json.dumps(body) == before


def sent(body: dict[str, Any], **changes: Any) -> tuple[str, int] | None:
    return limit_to_send(body, catalog(model("m", **changes)).models[0], measure_prompt(body))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ({"provider": "openai", "base_url": "http://127.0.0.1:9/v1"}, "max_completion_tokens"),
        ({"engine": "http://127.0.0.1:9/v1"}, "max_tokens"),
        ({"engine": "bundled", "weights": "w"}, "max_tokens"),
    ],
)
def test_the_bound_is_sent_by_the_name_that_the_upstream_knows(place: dict[str, Any], name: str) -> None:
    assert sent({"messages": user("x")}, max_output=500, **place) == (name, 500)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_request_that_names_its_limit_keeps_it(name: str) -> None:
    assert sent({"messages": user("x"), name: 7}, max_output=500) is None


def test_near_the_end_of_the_context_nothing_is_sent_and_the_context_is_the_bound() -> None:
    short, long = {"messages": user("x" * 1000)}, {"messages": user("x" * 3500)}
    made = catalog(model("m", max_output=500, context=2000)).models[0]
    assert sent(short, max_output=500, context=2000) == ("max_tokens", 500)
    assert sent(long, max_output=500, context=2000) is None
    assert made.price is not None
    assert worst_case(short, made, made.price, strict=True).output_tokens == 500
    assert worst_case(long, made, made.price, strict=True).output_tokens == 2000
    assert worst_case(long, made, made.price).output_tokens == 500


def test_a_likely_length_lowers_the_output_and_never_raises_it() -> None:
    made = catalog(model("m", max_output=500)).models[0]
    assert made.price is not None
    body = {"messages": user("x"), "n": 2}
    assert worst_case(body, made, made.price, likely=30).output_tokens == 60
    assert worst_case(body, made, made.price, likely=3000) == worst_case(body, made, made.price)
