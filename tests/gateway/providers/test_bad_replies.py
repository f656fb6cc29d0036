"""Replies of the wrong kind: each is named for what it is, and none shows our key."""

from __future__ import annotations

import traceback

import pytest

from gateway.errors import (
    ProviderBadReply,
    ProviderError,
    ProviderFailed,
    ProviderRateLimited,
    ProviderRejected,
)
from tests.gateway.providers.asking import KEY, Open, call, replies
from tests.gateway.providers.raw_upstream import chunked, with_length


def shown_by_a_log(error: BaseException | None) -> str:
    """An error and everything that led to it, as tracebacks and careless loggers show them."""
    shown = ""
    while error is not None:
        shown += "".join(traceback.format_exception(error)) + f"{error!r} {error.args} {vars(error)}"
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ProviderBadReply, "not HTTP"),
        (with_length(b"<html>welcome</html>", "text/html"), ProviderBadReply, "text/html|not a JSON object"),
        (with_length(b"[]"), ProviderBadReply, "not a JSON object|where a stream"),
        (with_length(b'{"choices": []}'), ProviderBadReply, "not a chat completion|where a stream"),
        (with_length(b'{"choices": [{"text": "x"}]}'), ProviderBadReply, "not a chat completion|where a stream"),
        (with_length(b'{"error": {"message": "busy", "code": 429}}'), ProviderRateLimited, "the provider's limit"),
        (with_length(b'{"error": {"message": "no", "code": "503"}}'), ProviderFailed, "began as a success: no"),
        (with_length(b'{"detail": [{"loc": ["n"]}]}', status="422 No"), ProviderRejected, "loc"),
        (with_length(b'{"message": "flat", "object": "error"}', status="400 No"), ProviderRejected, "flat"),
        (with_length(b"plain words", "text/plain", "500 No"), ProviderFailed, "answered 500: plain words"),
        (with_length(b"<h1>Bad gateway</h1>", "text/html", "502 No"), ProviderFailed, r"answered 502\.$"),
        (with_length(b"", status="500 No"), ProviderFailed, r"answered 500\.$"),
        (with_length(b"e" * 200_000, status="500 No"), ProviderFailed, "answered 500: eee"),
        (with_length(b"{}", status="302 Found", extra="location: /elsewhere\r\n"), ProviderFailed, "redirect"),
        (with_length(b"{}", status="307 Same", extra="location: /elsewhere\r\n"), ProviderFailed, "redirect"),
        (with_length(KEY.encode(), status="500 No"), ProviderFailed, r"answered 500: \[key\]"),
        (with_length(f"{'e' * 490}{KEY}".encode(), "text/plain", "500 No"), ProviderFailed, r"e\[key\]"),
        (with_length(f'{{"error": "\\u0073{KEY[1:]}"}}'.encode(), status="500 No"), ProviderFailed, r"500: \[key\]"),
        (with_length(f'["{KEY}"]'.encode()), ProviderBadReply, r"\[key\]|where a stream"),
    ],
    ids=lambda value: value[:60].decode(errors="replace") if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_reply_of_the_wrong_kind_is_named_and_never_shows_our_key(
    opened: Open, reply: bytes, error: type[ProviderError], words: str, streamed: bool
) -> None:
    upstream, provider, to = await opened(replies(reply, keep=False))
    with pytest.raises(error, match=words) as caught:
        await (provider.stream(call(to), include_usage=False) if streamed else provider.complete(call(to)))
    assert (
        KEY not in f"{caught.value!r} {caught.value.body()} {caught.value.upstream_body} {shown_by_a_log(caught.value)}"
    )
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b"data: [DONE]\n\n"], "without a single event"),
        ([b": ping\n\n", b": ping\n\n"], "without a finish reason"),
        ([], "without a finish reason"),
        ([b"data: <html>\n\n"], "an event is not JSON: '<html>'"),
        ([f"data: {KEY}\n\n".encode()], r"an event is not JSON: '\[key\]'"),
    ],
    ids=["done", "pings", "nothing", "html", "key"],
)
async def test_a_stream_without_any_event_is_a_bad_reply_that_may_fall_back(
    opened: Open, pieces: list[bytes], words: str
) -> None:
    _, provider, to = await opened(replies(chunked(pieces)))
    with pytest.raises(ProviderBadReply, match=words) as caught:
        await provider.stream(call(to), include_usage=False)
    assert caught.value.try_next


async def test_a_key_with_a_newline_from_a_file_is_sent_without_it_and_still_hidden(opened: Open) -> None:
    reply = with_length(f"you are {KEY}".encode(), "text/plain", "500 No")
    upstream, provider, to = await opened(replies(reply), api_key=f"{KEY}\n")
    with pytest.raises(ProviderFailed, match=r"you are \[key\]$"):
        await provider.complete(call(to))
    assert upstream.requests[0].header("authorization") == f"Bearer {KEY}"


async def test_a_placeholder_key_does_not_blot_out_words(opened: Open) -> None:
    _, provider, to = await opened(replies(with_length(b"x marks it", "text/plain", "500 No")), api_key="x")
    with pytest.raises(ProviderFailed, match="x marks it"):
        await provider.complete(call(to))
