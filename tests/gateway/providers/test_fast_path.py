"""The fast path on the wire: what is sent, and every way in which a reply may be framed and cut into packets."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.errors import (
    ProviderTimeout,
)
from tests.gateway.providers.asking import COMPLETION, EVENTS, KEY, Open, call, provider_at, read, replies
from tests.gateway.providers.raw_upstream import Request, chunked, with_length


async def test_the_request_carries_unknown_fields_the_upstreams_model_name_our_key_and_the_request_id(
    opened: Open,
) -> None:
    upstream, provider, to = await opened(replies(with_length(COMPLETION)))
    await provider.complete(call(to, top_k=5, vendor={"a": [1, None]}, stream=False))
    request = upstream.requests[0]
    assert request.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("content-type") == "application/json"
    assert request.header("x-request-id") == "req-42"
    assert request.header("accept-encoding") == "identity"
    assert request.header("cookie") is None
    assert orjson.loads(request.body) == {
        "model": "up/stream",
        "messages": [{"role": "user", "content": "x"}],
        "top_k": 5,
        "vendor": {"a": [1, None]},
    }


async def test_a_request_of_many_megabytes_arrives_whole(opened: Open) -> None:
    upstream, provider, to = await opened(replies(with_length(COMPLETION)))
    image = "data:image/png;base64," + "A" * 5 * 2**20
    await provider.complete(call(to, messages=[{"role": "user", "content": image}]))
    await provider.complete(call(to))
    assert orjson.loads(upstream.requests[0].body)["messages"][0]["content"] == image
    assert upstream.connections == 1


async def test_a_stream_is_always_asked_to_report_its_usage(opened: Open) -> None:
    upstream, provider, to = await opened(replies(chunked(EVENTS)))
    await read(provider, to, stream_options={"include_usage": False, "include_obfuscation": False})
    sent = orjson.loads(upstream.requests[0].body)
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}


async def test_without_a_key_no_authorization_is_sent_and_one_in_the_url_becomes_a_header(opened: Open) -> None:
    upstream, provider, to = await opened(replies(with_length(COMPLETION)), api_key=None)
    await provider.complete(call(to))
    assert upstream.requests[0].header("authorization") is None
    with_user = f"http://user:pass@127.0.0.1:{upstream.port}/v1"
    async with provider_at(with_user, api_key=None) as (other, at):
        await other.complete(call(at))
    assert upstream.requests[1].header("authorization") == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize(
    "reply",
    [
        with_length(COMPLETION),
        chunked([COMPLETION[:20], COMPLETION[20:21], COMPLETION[21:]], "application/json"),
        with_length(COMPLETION, extra="set-cookie: a=b\r\n"),
        with_length(COMPLETION, status="201 Created"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + with_length(COMPLETION),
    ],
    ids=["content-length", "chunked", "cookie", "created", "continue"],
)
async def test_a_plain_reply_is_the_same_bytes_however_it_is_framed(opened: Open, reply: bytes) -> None:
    upstream, provider, to = await opened(replies(reply))
    for _ in range(3):
        assert (await provider.complete(call(to))).body == COMPLETION
    assert upstream.connections == 1
    assert upstream.requests[-1].header("cookie") is None


async def test_a_reply_that_ends_with_the_connection_is_read_whole(opened: Open) -> None:
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: "
    _, provider, to = await opened(replies(head + b"application/json\r\n\r\n" + COMPLETION, keep=False))
    assert (await provider.complete(call(to))).body == COMPLETION
    _, provider, to = await opened(replies(head + b"text/event-stream\r\n\r\n" + b"".join(EVENTS), keep=False))
    assert await read(provider, to) == b"".join(EVENTS[:2])


async def test_events_are_relayed_as_they_come_wherever_the_packets_are_cut(opened: Open) -> None:
    whole = chunked(EVENTS)
    for size in (1, 7, 64):
        parts = [whole[i : i + size] for i in range(0, len(whole), size)]
        upstream, provider, to = await opened(replies(*parts))
        assert await read(provider, to) == b"".join(EVENTS[:2])
        assert await read(provider, to) == b"".join(EVENTS[:2])
        assert upstream.connections <= 2


async def test_pings_before_the_first_event_do_not_stop_its_deadline(opened: Open) -> None:
    head = chunked([], end=False)
    ping = b"8\r\n: ping\n\n\r\n"
    _, provider, to = await opened(replies(head, *[ping] * 100, pause=0.03), deadlines={"first_token": 0.25})
    with pytest.raises(ProviderTimeout, match="first_token"):
        await provider.stream(call(to), include_usage=False)


async def test_two_hundred_streams_and_calls_at_once_each_get_their_own_answer(opened: Open) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        body = orjson.loads(request.body)
        text = body["messages"][0]["content"]
        if not body.get("stream"):
            payload = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
            writer.write(with_length(orjson.dumps(payload)))
            return True
        writer.write(chunked([], end=False))
        for place, piece in enumerate(text.split("-")):
            finish = "stop" if place == 2 else None
            event = {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": finish}]}
            writer.write(chunked([b"data: " + orjson.dumps(event) + b"\n\n"], end=False).split(b"\r\n\r\n", 1)[1])
            await asyncio.sleep(0.02)
        writer.write(chunked([b"data: [DONE]\n\n"]).split(b"\r\n\r\n", 1)[1])
        return True

    upstream, provider, to = await opened(answer)

    async def one(number: int) -> None:
        text = f"a{number}-b{number}-c{number}"
        message = [{"role": "user", "content": text}]
        if number % 2:
            completion = await provider.complete(call(to, messages=message))
            assert completion.payload["choices"][0]["message"]["content"] == text
        else:
            relayed = await read(provider, to, messages=message)
            events = [orjson.loads(block[6:]) for block in relayed.split(b"\n\n") if block]
            assert "-".join(event["choices"][0]["delta"]["content"] for event in events) == text

    await asyncio.gather(*[one(number) for number in range(400)])
    assert len(upstream.requests) == 400
