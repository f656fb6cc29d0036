"""A body is read once, strictly where Penstock relies on it, and passed through everywhere else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.chat.request import ChatRequest
from gateway.errors import InvalidJson, InvalidRequest, InvalidValue, UnknownOption

MESSAGES = [{"role": "user", "content": "hello"}]


def parse(body: object, headers: dict[bytes, bytes] | None = None) -> ChatRequest:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return parse_chat_request(raw, headers or {}, request_id="req_1", received_at=0.0, started=0.0)


def test_unknown_openai_fields_stay_in_the_body_and_penstocks_own_are_taken_out() -> None:
    request = parse(
        {
            "model": "auto",
            "messages": MESSAGES,
            "logit_bias": {"1": 5},
            "brand_new": [1],
            "penstock": {"tier": "premium"},
        }
    )
    assert request.body == {"model": "auto", "messages": MESSAGES, "logit_bias": {"1": 5}, "brand_new": [1]}
    assert request.options.tier == "premium"


def test_options_come_from_the_body_and_from_headers_and_the_body_wins() -> None:
    headers = {b"x-penstock-tier": b"economy", b"x-penstock-session-id": b"run-7", b"x-penstock-tags": b"a, b"}
    request = parse(
        {"model": "auto", "messages": MESSAGES, "penstock": {"tier": "deep", "max_cost_usd": 0.25}}, headers
    )
    assert request.options.tier == "deep"
    assert request.options.session_id == "run-7"
    assert request.options.tags == ("a", "b")
    assert request.options.max_cost == 250_000_000_000


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({}, {}, None),
        ({"user": "", "safety_identifier": None}, {}, None),
        ({"user": "bob"}, {}, "bob"),
        ({"user": "bob", "safety_identifier": "sid-1"}, {}, "sid-1"),
        ({"user": "bob"}, {b"x-penstock-user": b"eve"}, "eve"),
        ({"user": "bob", "penstock": {"user": "ann"}}, {b"x-penstock-user": b"eve"}, "ann"),
        ({"metadata": {"user_id": "bob"}, "prompt_cache_key": "bob"}, {}, None),
        ({"messages": [{"role": "user", "name": "bob", "content": "hi"}]}, {}, None),
    ],
)
def test_the_end_user_comes_from_openais_fields_or_penstocks_own_option_and_nothing_else(
    fields: dict[str, Any], headers: dict[bytes, bytes], expected: str | None
) -> None:
    request = parse({"model": "m", "messages": MESSAGES, **fields}, headers)
    assert request.end_user == expected
    assert {name: request.body[name] for name in fields if name != "penstock"} == {
        name: value for name, value in fields.items() if name != "penstock"
    }


def test_a_tag_that_is_named_twice_counts_once() -> None:
    request = parse({"model": "m", "messages": MESSAGES, "penstock": {"tags": ["b", "a", "b"]}})
    assert request.options.tags == ("b", "a")


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": MESSAGES}, "model", "model is missing"),
    ({"model": 7, "messages": MESSAGES}, "model", "model is 7"),
    ({"model": "m"}, "messages", "messages is missing"),
    ({"model": "m", "messages": []}, "messages", "messages is []"),
    ({"model": "m", "messages": ["hi"]}, "messages[0]", "'hi'"),
    ({"model": "m", "messages": [{"content": "x"}]}, "messages[0].role", "is missing"),
    ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content", "is 5"),
    ({"model": "m", "messages": MESSAGES, "n": 0}, "n", "n is 0; it must be a whole number of at least 1"),
    ({"model": "m", "messages": MESSAGES, "n": 1000}, "n", "at most 128"),
    ({"model": "m", "messages": MESSAGES, "max_tokens": -5}, "max_tokens", "max_tokens is -5"),
    ({"model": "m", "messages": MESSAGES, "max_tokens": 1.5}, "max_tokens", "max_tokens is 1.5"),
    ({"model": "m", "messages": MESSAGES, "max_completion_tokens": True}, "max_completion_tokens", "is True"),
    ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream", "stream is 'yes'"),
    ({"model": "m", "messages": MESSAGES, "stream_options": {}}, "stream_options", "only allowed when stream is true"),
    ({"model": "m", "messages": MESSAGES, "penstock": []}, "penstock", "penstock is []"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"tier": "gold"}}, "penstock.tier", "one of economy, standard"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"mode": "fast"}}, "penstock.mode", "quick, standard, deep"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"max_cost_usd": -1}}, "penstock.max_cost_usd", "negative"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"min_quality": 2}}, "penstock.min_quality", "from 0 to 1"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"regions": "eu"}}, "penstock.regions", "a list of 1 to"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"tags": [""]}}, "penstock.tags", "1 to 200"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"session_id": ""}}, "penstock.session_id", "1 to 200"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"tags": ["a\x00"]}}, "penstock.tags", "control characters"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"user": "\n"}}, "penstock.user", "control characters"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"user": "u" * 513}}, "penstock.user", "1 to 512"),
    ({"model": "m", "messages": MESSAGES, "user": 7}, "user", "user is 7; it must be a string"),
    ({"model": "m", "messages": MESSAGES, "user": "a\x00"}, "user", "control characters"),
    ({"model": "m", "messages": MESSAGES, "safety_identifier": "s" * 513}, "safety_identifier", "at most 512"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"strategy": "vote"}}, "penstock.strategy", "'single'"),
    ({"model": "m", "messages": MESSAGES, "penstock": {"samples": 4}}, "penstock.samples", "must be 1"),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD, ids=[f"{param}: {message}" for _, param, message in BAD])
def test_a_wrong_field_is_named_with_its_value_and_what_it_must_be(
    body: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidValue) as error:
        parse(body)
    assert error.value.param == param
    assert message in error.value.message


def test_an_unknown_option_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(UnknownOption) as error:
        parse({"model": "m", "messages": MESSAGES, "penstock": {"teir": "economy"}})
    assert "Did you mean 'tier'?" in error.value.message
    assert "session_id" in error.value.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"{" * 100_000])
def test_what_is_not_a_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse(raw)


def test_a_huge_value_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidRequest) as error:
        parse({"model": "m", "messages": "x" * 1_000_000})
    assert len(error.value.message) < 300
