"""What every provider keeps: the fast path over real sockets and the scripted provider in process, test by test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from gateway.catalog import Model
from gateway.errors import (
    ProviderBadReply,
    ProviderError,
    ProviderFailed,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    StreamCut,
)
from gateway.providers.base import Call, EventStream, Provider
from gateway.providers.registry import build_providers
from gateway.providers.script import read_script
from gateway.providers.scripted_server import ScriptedServer, serving
from tests.builders import catalog, model

KEY = "sk-provider-secret-7d1f"
REPLY = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 😀."
TOKENS = {"input": 100, "output": 40, "reasoning": 25, "cached": 60}
USAGE = {
    "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 25},
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A provider with one model to ask."""

    provider: Provider
    model: Model

    def call(self, **changes: Any) -> Call:
        body = {"model": "m", "messages": [{"role": "user", "content": "Say it."}], **changes}
        return Call(self.model, body, "req-1")

    async def attempt(self, streamed: bool) -> None:
        """A whole plain call, or a whole stream."""
        if streamed:
            await self.read()
        else:
            await self.provider.complete(self.call())

    async def read(self, *, include_usage: bool = False, **changes: Any) -> tuple[EventStream, list[dict[str, Any]]]:
        """The whole stream, parsed; what it relays must be complete events."""
        stream = await self.provider.stream(self.call(**changes), include_usage=include_usage)
        events: list[dict[str, Any]] = []
        async for data in stream:
            assert data.endswith(b"\n\n")
            events += [orjson.loads(block.removeprefix(b"data: ")) for block in data.split(b"\n\n") if block]
        return stream, events


Ask = Callable[..., Awaitable[Asked]]


@pytest.fixture(params=["over_http", "in_process"])
async def ask(request: pytest.FixtureRequest) -> AsyncIterator[Ask]:
    """Makes a provider from a script; deadlines may be given."""
    async with AsyncExitStack() as stack:

        async def make(script: dict[str, Any], **deadlines: float) -> Asked:
            entry: dict[str, Any] = {"script": script}
            if request.param == "over_http":
                port = await stack.enter_async_context(serving(ScriptedServer({}, read_script(script, "script"))))
                entry = {"provider": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
            made = catalog(model("m", api_key=KEY, deadlines=deadlines, **entry))
            providers = build_providers(made, engine_url=None)
            await providers.open()
            stack.push_async_callback(providers.close)
            return Asked(providers.for_model(made.models[0]), made.models[0])

        yield make


def text_of(events: list[dict[str, Any]], index: int = 0, name: str = "content") -> str:
    deltas = [choice["delta"] for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(delta.get(name) or "" for delta in deltas)


async def collect(stream: EventStream, parts: list[bytes]) -> None:
    async for data in stream:
        parts.append(data)


async def test_a_plain_completion_is_passed_on_byte_for_byte_with_its_usage(ask: Ask) -> None:
    asked = await ask({"reply": REPLY, "tokens": TOKENS})
    completion = await asked.provider.complete(asked.call())
    assert orjson.loads(completion.body) == completion.payload
    assert completion.payload["choices"][0]["message"]["content"] == REPLY
    assert completion.raw_usage == USAGE


async def test_a_stream_carries_the_whole_reply_and_its_usage_is_seen_though_not_asked_for(ask: Ask) -> None:
    asked = await ask({"reply": REPLY, "tokens": TOKENS})
    stream, events = await asked.read()
    assert text_of(events) == REPLY
    assert all(event["choices"] for event in events)
    assert stream.raw_usage == USAGE
    assert stream.finish_reasons == {0: "stop"}
    assert stream.output_characters == len(REPLY)


async def test_the_usage_event_is_relayed_when_the_client_asked_for_it(ask: Ask) -> None:
    asked = await ask({"reply": REPLY, "tokens": TOKENS})
    stream, events = await asked.read(include_usage=True)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == USAGE == stream.raw_usage


async def test_an_upstream_that_reports_no_usage_leaves_characters_to_estimate_from(ask: Ask) -> None:
    asked = await ask({"reply": REPLY, "reasoning": "First count, then say.", "usage": "omit"})
    stream, events = await asked.read()
    assert stream.raw_usage is None
    assert text_of(events, name="reasoning_content") == "First count, then say."
    assert stream.reasoning_characters == len("First count, then say.")
    assert stream.output_characters == len(REPLY) + len("First count, then say.")
    assert (await asked.provider.complete(asked.call())).raw_usage is None


async def test_tool_calls_stream_whole_and_are_counted(ask: Ask) -> None:
    asked = await ask({"tool_call": {"name": "look_up", "arguments": '{"city": "Paris", "day": 3}'}})
    stream, events = await asked.read()
    calls = [call for event in events for choice in event["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Paris", "day": 3}'
    assert stream.output_characters == len("look_up") + len('{"city": "Paris", "day": 3}')
    assert stream.finish_reasons == {0: "tool_calls"}


async def test_every_choice_is_followed_to_its_finish_reason(ask: Ask) -> None:
    asked = await ask({"reply": "one two three"})
    stream, events = await asked.read(n=3, max_tokens=2)
    assert stream.finish_reasons == {0: "length", 1: "length", 2: "length"}
    assert [text_of(events, index) for index in range(3)] == ["one two "] * 3
    assert stream.output_characters == 3 * len("one two ")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("script", "error", "status", "upstream_status"),
    [
        ({"behaviour": "flaky", "fail_every": 1}, ProviderFailed, 502, 500),
        ({"behaviour": "flaky", "fail_every": 1, "status": 503}, ProviderFailed, 502, 503),
        ({"behaviour": "flaky", "fail_every": 1, "status": 529}, ProviderFailed, 502, 529),
        ({"behaviour": "flaky", "fail_every": 1, "status": 504}, ProviderTimeout, 504, 504),
        ({"behaviour": "flaky", "fail_every": 1, "status": 408}, ProviderTimeout, 504, 408),
        ({"behaviour": "flaky", "fail_every": 1, "status": 402}, ProviderFailed, 502, 402),
        ({"behaviour": "flaky", "fail_every": 1, "status": 307}, ProviderFailed, 502, 307),
        ({"behaviour": "rate_limited"}, ProviderRateLimited, 429, 429),
        ({"behaviour": "unauthorized"}, ProviderFailed, 502, 401),
        ({"behaviour": "unauthorized", "status": 403}, ProviderFailed, 502, 403),
        ({"behaviour": "refuse"}, ProviderRejected, 400, 400),
        ({"behaviour": "refuse", "status": 404}, ProviderFailed, 502, 404),
        ({"behaviour": "refuse", "status": 413}, ProviderRejected, 413, 413),
        ({"behaviour": "refuse", "status": 422}, ProviderRejected, 422, 422),
        ({"behaviour": "cut", "break_after": 0}, ProviderFailed, 502, None),
        ({"behaviour": "wrong_json", "break_after": 0}, ProviderBadReply, 502, None),
        ({"behaviour": "error_event", "break_after": 0}, ProviderFailed, 502, 502),
        ({"behaviour": "huge", "break_after": 0}, ProviderBadReply, 502, None),
    ],
    ids=lambda value: "-".join(str(item) for item in value.values()) if isinstance(value, dict) else "",
)
async def test_a_call_that_gets_no_answer_raises_the_error_that_names_why_and_never_shows_our_key(
    ask: Ask,
    script: dict[str, Any],
    error: type[ProviderError],
    status: int,
    upstream_status: int | None,
    streamed: bool,
) -> None:
    asked = await ask(script)
    with pytest.raises(error) as caught:
        await asked.attempt(streamed)
    assert type(caught.value) is error
    assert caught.value.http_status == status
    assert caught.value.upstream_status == upstream_status
    assert KEY not in f"{caught.value!r} {caught.value.body()} {caught.value.upstream_body} {caught.value.headers}"
    assert "model 'm'" in caught.value.message


async def test_a_rate_limit_says_whose_it_is_and_passes_on_when_to_come_back(ask: Ask) -> None:
    asked = await ask({"behaviour": "rate_limited", "retry_after": 2.5})
    with pytest.raises(ProviderRateLimited, match="the provider's limit, not one of Penstock's") as caught:
        await asked.provider.complete(asked.call())
    assert caught.value.headers == {"retry-after": "2", "retry-after-ms": "2500"}


async def test_a_rejection_passes_on_the_providers_own_words_without_our_key(ask: Ask) -> None:
    asked = await ask({"behaviour": "refuse"})
    with pytest.raises(ProviderRejected) as caught:
        await asked.provider.complete(asked.call())
    assert caught.value.body() == {
        "error": {
            "message": "scripted failure; you came with [key]",
            "type": "invalid_request_error",
            "param": None,
            "code": "scripted_refusal",
        }
    }


@pytest.mark.parametrize("behaviour", ["cut", "wrong_json", "error_event", "huge"])
@pytest.mark.parametrize("streamed_chunks", range(1, 6))
async def test_a_stream_that_breaks_at_any_chunk_hands_on_what_came_and_then_says_that_it_was_cut(
    ask: Ask, behaviour: str, streamed_chunks: int
) -> None:
    script = {
        "behaviour": behaviour,
        "reply": "one two three",
        "break_after": streamed_chunks,
        "huge_bytes": 20 * 2**20,
    }
    asked = await ask({**script, "per_token_seconds": 0.001})
    stream = await asked.provider.stream(asked.call(), include_usage=True)
    parts: list[bytes] = []
    if behaviour == "cut" and streamed_chunks == 5:  # only usage and [DONE] are missing then: the answer is whole
        await collect(stream, parts)
    else:
        with pytest.raises(StreamCut) as caught:
            await collect(stream, parts)
        assert KEY not in f"{caught.value} {caught.value!r}"
    chunks = [orjson.loads(block[6:]) for block in b"".join(parts).split(b"\n\n") if block]
    words = ["", "one ", "two ", "three", ""][:streamed_chunks]
    assert [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks] == words
    assert stream.output_characters == sum(map(len, words))
    assert stream.raw_usage is None


@pytest.mark.parametrize(
    ("script", "deadlines", "streamed", "named"),
    [
        ({"behaviour": "hang"}, {"total": 0.2}, False, "deadlines.total"),
        ({"behaviour": "hang"}, {"first_token": 0.2}, True, "deadlines.first_token"),
        ({"behaviour": "hang"}, {"total": 0.2}, True, "deadlines.total"),
        ({"behaviour": "slow", "first_token_seconds": 60}, {"first_token": 0.2}, True, "deadlines.first_token"),
        ({"behaviour": "slow", "per_token_seconds": 60}, {"between_tokens": 0.2}, True, "deadlines.between_tokens"),
        ({"behaviour": "slow", "per_token_seconds": 0.06}, {"total": 0.2}, True, "deadlines.total"),
    ],
    ids=["plain-total", "first-token", "first-token-by-total", "slow-first-token", "between-tokens", "stream-total"],
)
async def test_a_missed_deadline_is_a_timeout_that_names_the_deadline(
    ask: Ask, script: dict[str, Any], deadlines: dict[str, float], streamed: bool, named: str
) -> None:
    asked = await ask({**script, "reply": "word " * 50}, **deadlines)
    with pytest.raises(ProviderTimeout, match=named):
        await asked.attempt(streamed)


async def test_a_slow_reader_is_not_taken_for_a_slow_provider(ask: Ask) -> None:
    asked = await ask({"reply": "one two three four"}, between_tokens=0.1)
    stream = await asked.provider.stream(asked.call(), include_usage=False)
    async for _ in stream:
        await asyncio.sleep(0.15)
    assert stream.finish_reasons == {0: "stop"}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_cancelled_call_is_cancelled_and_no_timeout(ask: Ask, streamed: bool) -> None:
    asked = await ask({"behaviour": "hang"})
    provider = asked.provider
    waiting = provider.stream(asked.call(), include_usage=False) if streamed else provider.complete(asked.call())
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_closed_stream_ends_also_for_somebody_waiting_on_it(ask: Ask) -> None:
    asked = await ask({"reply": "one two", "per_token_seconds": 3600})
    stream = await asked.provider.stream(asked.call(), include_usage=False)
    await anext(aiter(stream))
    waiting = asyncio.ensure_future(anext(aiter(stream)))
    await asyncio.sleep(0.05)
    await stream.close()
    with pytest.raises((StreamCut, StopAsyncIteration)):
        await waiting


async def test_the_callers_body_is_left_alone(ask: Ask) -> None:
    asked = await ask({})
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"a": 1}}
    before = orjson.dumps(body)
    await asked.provider.complete(Call(asked.model, body, "r"))
    stream = await asked.provider.stream(Call(asked.model, body, "r"), include_usage=False)
    await stream.close()
    assert orjson.dumps(body) == before
