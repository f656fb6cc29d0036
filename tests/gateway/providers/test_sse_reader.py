"""The stream reader: bytes cut anywhere give the same events, the same bytes on, and the same notes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.stream import SseReader


def event(choices: list[dict[str, Any]], **extra: Any) -> bytes:
    return b"data: " + orjson.dumps({"id": "c", "choices": choices, **extra})


def words(text: str | None, finish: str | None = None, index: int = 0) -> bytes:
    return event([{"index": index, "delta": {"content": text} if text is not None else {}, "finish_reason": finish}])


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
USAGE_EVENT = event([], usage=USAGE)
DONE = b"data: [DONE]"


@dataclass(frozen=True)
class Seen:
    """All that a stream leaves behind."""

    relayed: bytes
    usage: dict[str, Any] | None
    characters: int
    finish_reasons: dict[int, str]
    events: int
    done: bool
    failure: str | None


def read(chunks: list[bytes], *, keep_usage: bool = False, **limits: int) -> Seen:
    reader = SseReader(keep_usage=keep_usage, **limits)
    relayed = b"".join([reader.feed(chunk) for chunk in chunks]) + reader.end()
    return Seen(
        relayed,
        reader.raw_usage,
        reader.output_characters,
        dict(reader.finish_reasons),
        reader.events,
        reader.done,
        reader.failure.message if reader.failure else None,
    )


def stream(*blocks: bytes, border: bytes = b"\n\n") -> bytes:
    return b"".join(block + border for block in blocks)


def without_stray_newlines(seen: Seen) -> Seen:
    """A border cut between CR and LF may leave a blank line where the withheld event was; clients skip blank lines."""
    return replace(seen, relayed=b"\n".join(seen.relayed.split()))


BORDERS = (b"\n\n", b"\r\n\r\n", b"\r\r")
WHOLE = (words(""), b": ping", words("Grüße 😀 "), words("two"), words(None, "stop"), USAGE_EVENT, DONE)


@pytest.mark.parametrize("border", BORDERS, ids=["lf", "crlf", "cr"])
def test_a_stream_cut_in_two_at_any_byte_reads_as_in_one_piece(border: bytes) -> None:
    whole = stream(*WHOLE, border=border)
    expected = read([whole])
    assert expected == Seen(
        stream(*WHOLE[:5], border=border), USAGE, len("Grüße 😀 two"), {0: "stop"}, events=5, done=True, failure=None
    )
    for cut in range(len(whole) + 1):
        parted = read([whole[:cut], whole[cut:]])
        if border == b"\n\n":
            assert parted == expected, cut
        assert without_stray_newlines(parted) == without_stray_newlines(expected), cut


@pytest.mark.parametrize("border", BORDERS, ids=["lf", "crlf", "cr"])
def test_a_stream_that_comes_byte_by_byte_reads_as_in_one_piece(border: bytes) -> None:
    whole = stream(*WHOLE, border=border)
    assert read([whole[i : i + 1] for i in range(len(whole))], keep_usage=True) == read([whole], keep_usage=True)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
deltas = st.one_of(
    texts.map(lambda text: {"content": text}),
    texts.map(lambda text: {"reasoning_content": text}),
    texts.map(lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
    st.just({"role": "assistant", "content": ""}),
)
chunk_events = st.builds(
    lambda delta, index: event([{"index": index, "delta": delta, "finish_reason": None}]), deltas, st.integers(0, 2)
)
others = st.sampled_from(
    [b": ping", b":", USAGE_EVENT, b"event: message\n" + words("x"), b"id: 7", b"data: {\ndata: }"]
)


@given(
    blocks=st.lists(st.tuples(st.one_of(chunk_events, others), st.sampled_from(BORDERS)), max_size=8),
    line_feeds_only=st.booleans(),
    ending=st.sampled_from(
        [DONE, words(None, "stop"), b"data: {torn", b"data: 5", b'data: {"error": {"message": "no"}}', b""]
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
    keep_usage=st.booleans(),
)
def test_where_a_stream_is_cut_into_chunks_changes_nothing(
    blocks: list[tuple[bytes, bytes]], line_feeds_only: bool, ending: bytes, cuts: list[int], keep_usage: bool
) -> None:
    whole = b"".join(block + (b"\n\n" if line_feeds_only else border) for block, border in [*blocks, (ending, b"\n\n")])
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(places)]
    parted, at_once = read(pieces, keep_usage=keep_usage), read([whole], keep_usage=keep_usage)
    if b"\r" not in whole and b"\n\n\n" not in whole:
        assert parted == at_once
    assert without_stray_newlines(parted) == without_stray_newlines(at_once)


def test_the_usage_event_goes_on_only_when_asked_for_and_done_never() -> None:
    whole = stream(words("a"), words(None, "stop"), USAGE_EVENT, DONE)
    assert read([whole]).relayed == stream(words("a"), words(None, "stop"))
    assert read([whole], keep_usage=True).relayed == stream(words("a"), words(None, "stop"), USAGE_EVENT)


def test_an_event_without_choices_and_without_usage_goes_on() -> None:
    filtered = event([], prompt_filter_results=[])
    assert read([stream(filtered, words("a", "stop"), DONE)]).relayed == stream(filtered, words("a", "stop"))


def test_usage_in_the_last_chunk_of_the_answer_is_seen_and_relayed() -> None:
    last = event([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    seen = read([stream(words("a"), last, DONE)])
    assert (seen.usage, seen.relayed) == (USAGE, stream(words("a"), last))


def test_of_several_usage_objects_the_last_counts() -> None:
    early = event([{"index": 0, "delta": {"content": "a"}}], usage={**USAGE, "completion_tokens": 1})
    assert read([stream(early, words(None, "stop"), USAGE_EVENT, DONE)]).usage == USAGE


@pytest.mark.parametrize(
    ("blocks", "whole"),
    [
        ([words("a"), words(None, "stop"), DONE], True),
        ([words("a"), DONE], True),
        ([words("a"), words(None, "stop")], True),
        ([words("a", "length")], True),
        ([words("a")], False),
        ([words("a"), words("b", None, 1), words(None, "stop", 0)], False),
        ([b": ping"], False),
        ([], False),
    ],
    ids=["all", "done-only", "finish-only", "finish-with-text", "neither", "one-of-two-choices", "pings", "nothing"],
)
def test_a_stream_is_whole_with_done_or_with_all_its_finish_reasons(blocks: list[bytes], whole: bool) -> None:
    seen = read([stream(*blocks)])
    assert seen.done is whole
    assert seen.failure == (None if whole else "the stream ended without a finish reason")


def test_a_last_event_without_its_border_counts_when_it_is_whole() -> None:
    whole = stream(words("a")) + words(None, "stop")
    assert read([whole]).relayed == whole + b"\n\n"
    assert read([whole]).done
    assert read([stream(words("a")) + DONE]).done


def test_a_torn_last_event_is_not_handed_on() -> None:
    seen = read([stream(words("a")) + words("more")[:-3]])
    assert seen.relayed == stream(words("a"))
    assert seen.failure == "the stream ended without a finish reason"


def test_data_over_several_lines_is_one_event() -> None:
    text = b'data: {"choices": [{"index": 0, "delta":\ndata:{"content": "abc"}, "finish_reason": "stop"}]}'
    seen = read([stream(text, DONE)])
    assert (seen.characters, seen.relayed, seen.finish_reasons) == (3, stream(text), {0: "stop"})


def test_data_without_a_space_other_fields_and_a_byte_order_mark_are_read() -> None:
    text = b"\xef\xbb\xbfevent: x\nid: 1\nretry: 5\n" + words("abc", "stop").replace(b"data: ", b"data:")
    assert read([stream(text, b"data:[DONE]")]).characters == 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"data: {torn", "an event is not JSON"),
        (b"data: 5", "an event is not a chat completion chunk"),
        (b"data: [1]", "an event is not a chat completion chunk"),
        (b'data: {"choices": [5]}', "an event is not a chat completion chunk"),
        (b'data: {"choices": 5}', "an event is not a chat completion chunk"),
        (b'data: {"choices": [{"index": [], "finish_reason": "x"}]}', "an event is not a chat completion chunk"),
        (b'data: {"choices": [{"delta": "text"}]}', "an event is not a chat completion chunk"),
        (b'data: {"choices": [{"delta": {"tool_calls": [3]}}]}', "an event is not a chat completion chunk"),
        (b'data: {"error": {"message": "out of luck", "code": 500}}', "the provider sent an error: out of luck"),
        (b'data: {"error": "out of luck"}', "the provider sent an error: out of luck"),
        (b'data: {"object": "error", "message": "out of luck"}', "the provider sent an error: out of luck"),
        (b'event: error\ndata: {"error": {"message": "out of luck"}}', "the provider sent an error: out of luck"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_bad_event_ends_the_stream_after_what_came_before_it(bad: bytes, message: str) -> None:
    seen = read([stream(words("abc"), bad, words("never"), DONE)])
    assert (seen.relayed, seen.failure, seen.characters) == (stream(words("abc")), message, 3)
    assert not seen.done


def test_an_event_that_is_too_large_fails_instead_of_filling_the_memory() -> None:
    reader = SseReader(keep_usage=False, max_event_bytes=1000)
    assert reader.feed(stream(words("abc"))) != b""
    for _ in range(11):
        reader.feed(b"x" * 100)
    assert reader.failure is not None
    assert reader.failure.message == "an event is larger than 1000 bytes"
    assert read([stream(words("y" * 1000))], max_event_bytes=1000).failure == "an event is larger than 1000 bytes"


def test_nothing_is_read_after_the_end() -> None:
    reader = SseReader(keep_usage=False)
    reader.feed(stream(words("abc", "stop"), DONE, words("never")))
    assert reader.feed(stream(words("never"))) == b""
    assert (reader.output_characters, reader.end()) == (3, b"")


def test_one_thought_under_two_names_is_counted_once() -> None:
    reader = SseReader(keep_usage=False)
    reader.feed(stream(event([{"index": 0, "delta": {"reasoning": "hmm", "reasoning_content": "hmm"}}])))
    reader.feed(stream(event([{"index": 0, "delta": {"content": [{"type": "text", "text": "ab"}]}}])))
    reader.feed(stream(event([{"index": 0, "delta": {"refusal": "no"}}])))
    assert (reader.reasoning_characters, reader.output_characters) == (3, 7)
