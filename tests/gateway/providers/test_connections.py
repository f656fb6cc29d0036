"""Connections that are reused, refused, closed, cut or stalled: what is raised, and that nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.errors import (
    ProviderFailed,
    ProviderUnreachable,
    StreamCut,
)
from gateway.providers.registry import build_providers
from tests.builders import catalog, model
from tests.gateway.providers.asking import COMPLETION, EVENTS, Open, call, collect, provider_at, read, replies
from tests.gateway.providers.raw_upstream import Request, chunked, raw_upstream, with_length


async def test_the_connection_of_a_finished_stream_is_used_again(opened: Open) -> None:
    upstream, provider, to = await opened(replies(chunked(EVENTS)))
    for _ in range(5):
        await read(provider, to)
        await asyncio.sleep(0.02)
    assert upstream.connections == 1


async def test_a_stream_that_is_closed_early_drops_its_connection(opened: Open) -> None:
    gone = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(chunked(EVENTS[:1], end=False))
        try:
            while True:
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(b"8\r\n: ping\n\n\r\n")
        except ConnectionError:
            gone.set()
        return False

    _, provider, to = await opened(answer)
    stream = await provider.stream(call(to), include_usage=False)
    await stream.close()
    await stream.close()
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_connection_that_the_server_closed_between_two_calls_is_not_used_again(opened: Open) -> None:
    upstream, provider, to = await opened(replies(with_length(COMPLETION), keep=False))
    for expected in (1, 2, 3):
        assert (await provider.complete(call(to))).body == COMPLETION
        await asyncio.sleep(0.05)
        assert upstream.connections == expected
    assert len(upstream.requests) == 3


async def test_a_post_whose_connection_dies_unanswered_is_sent_once_and_never_repeated(opened: Open) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        if request.connection == 1 and len(upstream.requests) == 1:
            writer.write(with_length(COMPLETION))
            return True
        return False  # the second request on the kept connection is read, and then the connection is closed

    upstream, provider, to = await opened(answer)
    await provider.complete(call(to))
    with pytest.raises(ProviderFailed, match="may have seen the request"):
        await provider.complete(call(to))
    assert [request.connection for request in upstream.requests] == [1, 1]
    with pytest.raises(ProviderFailed):
        await provider.stream(call(to), include_usage=False)
    assert len(upstream.requests) == 3


async def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can take the port
        async with provider_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as (provider, to):
            for streamed in (False, True):
                with pytest.raises(ProviderUnreachable, match="refused") as caught:
                    await (provider.stream(call(to), include_usage=False) if streamed else provider.complete(call(to)))
                assert "127.0.0.1" not in caught.value.message


async def test_an_unknown_host_is_unreachable() -> None:
    async with provider_at("http://no-such-host.invalid/v1") as (provider, to):
        with pytest.raises(ProviderUnreachable, match="host name cannot be resolved"):
            await provider.complete(call(to))


async def test_a_connection_that_is_never_accepted_misses_the_connect_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        try:
            url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
            async with provider_at(url, deadlines={"connect": 0.2}) as (provider, to):
                with pytest.raises(ProviderUnreachable, match=r"no connection within 0\.2 s"):
                    await provider.complete(call(to))
        finally:
            for filler in fillers:
                filler.close()


async def test_a_server_that_does_not_speak_tls_is_unreachable(opened: Open) -> None:
    upstream, _, _ = await opened(replies(with_length(COMPLETION)))
    async with provider_at(f"https://127.0.0.1:{upstream.port}/v1", deadlines={"connect": 1}) as (provider, to):
        with pytest.raises(ProviderUnreachable):
            await provider.complete(call(to))


async def test_a_whole_answer_stays_whole_when_the_connection_breaks_or_stalls_after_it(opened: Open) -> None:
    cut = chunked(EVENTS[:2], end=False)
    _, provider, to = await opened(replies(cut, keep=False))
    assert await read(provider, to) == b"".join(EVENTS[:2])

    async def stall(request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(cut)
        await asyncio.sleep(3600)
        return False

    _, provider, to = await opened(stall, deadlines={"between_tokens": 0.1})
    assert await read(provider, to) == b"".join(EVENTS[:2])


async def test_what_arrived_before_the_connection_broke_is_handed_on(opened: Open) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(chunked(EVENTS[:1], end=False))
        await asyncio.sleep(0.05)
        for _ in range(20):
            writer.write(chunked(EVENTS[:1], end=False).split(b"\r\n\r\n", 1)[1])
        await writer.drain()
        return False

    _, provider, to = await opened(answer)
    stream = await provider.stream(call(to), include_usage=False)
    parts = [await anext(aiter(stream))]
    await asyncio.sleep(0.3)  # all of it and the break are here before the next read
    with pytest.raises(StreamCut, match="connection was lost"):
        await collect(stream, parts)
    assert b"".join(parts) == EVENTS[0] * 21
    assert stream.output_characters == 21


async def test_calls_beyond_the_connection_limit_wait_their_turn() -> None:
    running = most = 0

    async def answer(request: Request, writer: asyncio.StreamWriter) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        writer.write(with_length(COMPLETION))
        return True

    async with raw_upstream(answer) as upstream:
        entry = model("m", provider="openai", base_url=upstream.base_url)
        made = catalog(entry, max_upstream_connections=3)
        providers = build_providers(made, engine_url=None)
        await providers.open()
        to = made.models[0]
        await asyncio.gather(*[providers.for_model(to).complete(call(to)) for _ in range(20)])
        await providers.close()
    assert most == 3
