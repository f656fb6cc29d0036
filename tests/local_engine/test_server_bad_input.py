"""Every bad request gets an OpenAI error body with the right status and code, and harms nobody else."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from local_engine.errors import InvalidRequest
from local_engine.request import SamplingDefaults
from local_engine.wire.chat import parse_chat
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.running_server import RunningServer, serve_in_thread

GOOD: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


BAD_CHATS: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no messages": (changed(messages=[]), 400, "invalid_value", "messages"),
    "messages are text": (changed(messages="Hi"), 400, "invalid_value", "messages"),
    "a message is text": (changed(messages=["Hi"]), 400, "invalid_value", "messages[0]"),
    "unknown role": (changed(messages=[{"role": "oracle", "content": ""}]), 400, "invalid_value", "messages[0].role"),
    "no content": (changed(messages=[{"role": "user"}]), 400, "invalid_value", "messages[0].content"),
    "half a surrogate": (changed(messages=user("\ud800")), 400, "invalid_value", "messages[0].content"),
    "an image": (
        changed(messages=user([{"type": "image_url", "image_url": {"url": "x"}}])),
        400, "unsupported_parameter", "messages[0].content",
    ),
    "no model": (changed(model=None), 400, "invalid_value", "model"),
    "unknown model": (changed(model="gpt-99"), 404, "model_not_found", "model"),
    "n is 0": (changed(n=0), 400, "invalid_value", "n"),
    "n is huge": (changed(n=100_000), 400, "invalid_value", "n"),
    "n is more than the queue": (changed(n=5), 400, "invalid_value", "n"),
    "best of several": (changed(best_of=3), 400, "unsupported_parameter", "best_of"),
    "best of more than n": (changed(n=2, best_of=3), 400, "unsupported_parameter", "best_of"),
    "best_of is text": (changed(best_of="all"), 400, "invalid_value", "best_of"),
    "speech": (changed(modalities=["audio"]), 400, "unsupported_parameter", "modalities"),
    "speech beside text": (
        changed(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}),
        400, "unsupported_parameter", "modalities",
    ),
    "modalities is text": (changed(modalities="text"), 400, "invalid_value", "modalities"),
    "no modality": (changed(modalities=[]), 400, "invalid_value", "modalities"),
    "n is true": (changed(n=True), 400, "invalid_value", "n"),
    "negative max_tokens": (changed(max_tokens=-1), 400, "invalid_value", "max_tokens"),
    "max_tokens is text": (changed(max_tokens="many"), 400, "invalid_value", "max_tokens"),
    "max_tokens is 0": (changed(max_completion_tokens=0), 400, "invalid_value", "max_completion_tokens"),
    "max_tokens over the context": (changed(max_tokens=5000), 400, "context_length_exceeded", "messages"),
    "prompt over the context": (changed(messages=user("drops 123 " * 200)), 400, "context_length_exceeded", "messages"),
    "temperature too high": (changed(temperature=2.5), 400, "invalid_value", "temperature"),
    "temperature is text": (changed(temperature="hot"), 400, "invalid_value", "temperature"),
    "top_p over 1": (changed(top_p=1.1), 400, "invalid_value", "top_p"),
    "top_k negative": (changed(top_k=-5), 400, "invalid_value", "top_k"),
    "seed too large": (changed(seed=2**70), 400, "invalid_value", "seed"),
    "penalty too large": (changed(frequency_penalty=3), 400, "invalid_value", "frequency_penalty"),
    "empty stop": (changed(stop=""), 400, "invalid_value", "stop"),
    "too many stops": (changed(stop=["x"] * 1000), 400, "invalid_value", "stop"),
    "stream is text": (changed(stream="yes"), 400, "invalid_value", "stream"),
    "stream_options is text": (changed(stream=True, stream_options="all"), 400, "invalid_value", "stream_options"),
    "a million stops": (changed(stop=["x"] * 1_000_000), 413, "body_too_large", None),
    "logprobs is a number": (changed(logprobs=3), 400, "invalid_value", "logprobs"),
    "too many top_logprobs": (changed(logprobs=True, top_logprobs=21), 400, "invalid_value", "top_logprobs"),
    "top_logprobs alone": (changed(top_logprobs=2), 400, "invalid_value", "top_logprobs"),
    "min_p over 1": (changed(min_p=1.5), 400, "invalid_value", "min_p"),
    "repetition penalty 0": (changed(repetition_penalty=0), 400, "invalid_value", "repetition_penalty"),
    "bias of no token": (changed(logit_bias={"the": 1}), 400, "invalid_value", "logit_bias"),
    "bias of an unknown token": (changed(logit_bias={"99999": 1}), 400, "invalid_value", "logit_bias"),
    "bias too large": (changed(logit_bias={"5": 101}), 400, "invalid_value", "logit_bias"),
    "bias is a list": (changed(logit_bias=[5]), 400, "invalid_value", "logit_bias"),
    "unknown form": (changed(response_format={"type": "xml"}), 400, "unsupported_parameter", "response_format"),
    "json schema without a schema": (
        changed(response_format={"type": "json_schema", "json_schema": {}}),
        400, "invalid_value", "response_format",
    ),
    "forced tool without tools": (changed(tool_choice="required", tools=[]), 400, "invalid_value", "tool_choice"),
    "forced tool that is not there": (
        changed(tool_choice={"type": "function", "function": {"name": "b"}}, tools=[{"function": {"name": "a"}}]),
        400, "invalid_value", "tool_choice",
    ),
    "tool without a name": (changed(tools=[{"function": {}}]), 400, "invalid_value", "tools[0].function.name"),
    "two tools of one name": (
        changed(tools=[{"function": {"name": "a"}}] * 2), 400, "invalid_value", "tools[1].function.name"
    ),
    "unknown effort": (changed(reasoning_effort="extreme"), 400, "invalid_value", "reasoning_effort"),
    "huge temperature": (changed(temperature=10**400), 400, "invalid_value", "temperature"),
    "half a surrogate in a tool": (
        changed(tools=[{"function": {"name": "a", "description": "\ud800"}}]), 400, "invalid_value", "tools"
    ),
    "unknown structured output": (
        changed(structured_outputs={"bogus": 1}), 400, "invalid_value", "structured_outputs"
    ),
    "structural tag": (changed(structural_tag={}), 400, "unsupported_parameter", "structured_outputs"),
    "a schema that is true": (changed(guided_json="true"), 400, "invalid_value", "guided_json"),
    "wrong GBNF": (changed(guided_grammar="bogus"), 400, "invalid_value", "guided_grammar"),
    "negative budget": (changed(thinking_budget=-1), 400, "invalid_value", "thinking_budget"),
    "salt empty": (changed(cache_salt=""), 400, "invalid_value", "cache_salt"),
    "salt is a number": (changed(cache_salt=7), 400, "invalid_value", "cache_salt"),
    "salt too long": (changed(cache_salt="x" * 1001), 400, "invalid_value", "cache_salt"),
    "priority is text": (changed(priority="high"), 400, "invalid_value", "priority"),
    "priority out of range": (changed(priority=-101), 400, "invalid_value", "priority"),
    "deadline before now": (changed(deadline_seconds=-1), 400, "invalid_value", "deadline_seconds"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CHATS)
def test_a_bad_chat_request_is_refused_by_name(tiny_server: RunningServer, case: str) -> None:
    body, status, code, param = BAD_CHATS[case]
    reply = httpx.post(tiny_server.url + CHAT, content=json.dumps(body), timeout=30)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": [10**9]}, "invalid_value", "prompt"),
        ({"prompt": [-1]}, "invalid_value", "prompt"),
        ({"prompt": "x", "echo": True, "logprobs": 1}, "unsupported_parameter", "echo"),
        ({"prompt": "x", "logprobs": 6}, "invalid_value", "logprobs"),
        ({"prompt": "x", "best_of": 2}, "unsupported_parameter", "best_of"),
        ({"prompt": "x", "suffix": "y"}, "unsupported_parameter", "suffix"),
        ({"prompt": "drops 123 " * 200}, "context_length_exceeded", "prompt"),
    ],
    ids=str,
)
def test_a_bad_completion_request_is_refused_by_name(
    tiny_server: RunningServer, changes: dict[str, Any], code: str, param: str
) -> None:
    reply = httpx.post(tiny_server.url + COMPLETION, json={"model": "tiny", **changes}, timeout=30)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, code, param)


def test_what_says_nothing_else_than_the_default_is_taken(tiny_server: RunningServer) -> None:
    for path, body in (
        (CHAT, changed(modalities=["text"])),
        (CHAT, changed(modalities=None, best_of=None)),
        (COMPLETION, {"model": "tiny", "prompt": "x", "n": 2, "best_of": 2, "max_tokens": 2}),
    ):
        reply = httpx.post(tiny_server.url + path, json=body, timeout=30)
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["choices"]) == body.get("n", 1)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"null", b'"text"', b"\xff\xfe", b'{"model": "tiny"', b"[" * 9000])
def test_a_body_that_is_no_json_object_is_refused(tiny_server: RunningServer, raw: bytes) -> None:
    for path in (CHAT, COMPLETION, "/tokenize"):
        reply = httpx.post(tiny_server.url + path, content=raw)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json")


def test_too_large_a_body_is_refused_declared_or_not(tiny_server: RunningServer) -> None:
    large = json.dumps(changed(messages=user("x" * 30_000))).encode()
    for content in (large, iter([large[:15_000], large[15_000:]])):  # the second is sent in chunks, without a length
        reply = httpx.post(tiny_server.url + CHAT, content=content)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_unknown_paths_and_methods_get_an_error_body(tiny_server: RunningServer) -> None:
    missing = httpx.get(f"{tiny_server.url}/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(tiny_server.url + CHAT)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "not_found")
    other = httpx.get(f"{tiny_server.url}/v1/models/other")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


def test_refused_requests_leave_the_server_answering(tiny_server: RunningServer) -> None:
    for body, *_ in BAD_CHATS.values():
        httpx.post(tiny_server.url + CHAT, content=json.dumps(body), timeout=30)
    reply = httpx.post(tiny_server.url + CHAT, json=GOOD, timeout=30)
    assert reply.status_code == 200
    assert tiny_server.loop.open_requests == 0


def test_a_configured_key_is_needed_everywhere_but_for_health(tiny_engine: EngineMaker) -> None:
    with serve_in_thread(tiny_engine(), "tiny", api_key="sécret") as server:
        right = {"authorization": "Bearer sécret".encode()}
        for path in ("/v1/models", "/v1/models/tiny", "/metrics"):
            assert httpx.get(server.url + path).status_code == 401
            assert httpx.get(server.url + path, headers={"authorization": "Bearer wrong"}).status_code == 401
            assert httpx.get(server.url + path, headers=right).status_code == 200
        for path in (CHAT, COMPLETION, "/tokenize"):
            refused = httpx.post(server.url + path, json=GOOD)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.post(server.url + CHAT, json=GOOD, headers=right, timeout=30).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_server_that_is_still_loading_says_so(tiny_server: RunningServer) -> None:
    tiny_server.service.status = "loading"
    health = httpx.get(f"{tiny_server.url}/health")
    refused = httpx.post(tiny_server.url + CHAT, json=GOOD)
    tiny_server.service.status = "ready"
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
    assert refused.headers["retry-after"] == "1"


def test_a_million_stop_strings_are_refused_by_their_number() -> None:
    with pytest.raises(InvalidRequest, match="1000000") as caught:
        parse_chat(changed(stop=["x"] * 1_000_000), SamplingDefaults())
    assert caught.value.param == "stop"
