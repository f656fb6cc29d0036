"""Reads a stream of chat completion events from bytes cut anywhere; pure, so that every cut can be tested.

Complete events are handed on as the upstream wrote them; what they say (usage, finish reasons, errors, how much text) is
noted on the way. Nothing raises: a stream that goes wrong sets `failure`, and what was read before it still counts.

    bytes ──feed──> relayable bytes            reading ──[DONE]──────────────> done
    end   ──end───> the last relayable bytes           ──error, not JSON─────> failure
                                                       ──end, all finished───> done
                                                       ──end, some unfinished─> failure
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

MAX_EVENT_BYTES = 16 * 2**20
"""Most bytes one event may have; an upstream that sends more is cut off before it fills the memory."""

_BLANK_LINES = (b"\n", b"\r\n", b"\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class StreamFailure:
    """Why a stream is no good. `error` is the upstream's own error object when it sent one, `data` the bad event."""

    message: str
    error: dict[str, Any] | None = None
    data: bytes = b""


class SseReader:
    """One stream's state. `[DONE]` is never handed on; a usage-only event only with `keep_usage`."""

    __slots__ = (
        "_carriage",
        "_keep_usage",
        "_max_event_bytes",
        "_open_choices",
        "_rest",
        "done",
        "events",
        "failure",
        "finish_reasons",
        "output_characters",
        "raw_usage",
        "reasoning_characters",
        "service_tier",
    )

    def __init__(self, *, keep_usage: bool, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._keep_usage = keep_usage
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()
        self._carriage = False
        self._open_choices: set[int] = set()
        self.events = 0
        self.done = False
        self.failure: StreamFailure | None = None
        self.finish_reasons: dict[int, str] = {}
        self.raw_usage: dict[str, Any] | None = None
        self.output_characters = 0
        self.reasoning_characters = 0
        self.service_tier: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return the complete events in it, as they were written. Once done or failed, nothing."""
        if self.done or self.failure:
            return b""
        if b"\r" in data:
            self._carriage = True
        if not self._rest:
            after = self._end_of_last_event(data, 0)
            complete = data if after == len(data) else data[:after]
            if after < len(data):
                self._rest += data[after:]
        else:
            # A border may have begun in what was left over. Searched in place, copied only once an event is complete.
            start = max(0, len(self._rest) - 2)
            self._rest += data
            after = self._end_of_last_event(self._rest, start)
            complete = bytes(self._rest[:after])
            del self._rest[:after]
        relayed = self._read_events(complete) if complete else b""
        if self._rest:
            self._check_size(len(self._rest))
        return relayed

    def end(self) -> bytes:
        """The upstream closed the stream. Decides whether it was whole; returns a last event that lacked its border."""
        if self.done or self.failure:
            return b""
        rest, self._rest = bytes(self._rest).strip(b"\r\n"), bytearray()
        relayed = b""
        if rest and _is_whole(rest):
            relayed = self._read_events(rest + b"\n\n")
        if self.done or self.failure:
            return relayed
        if self.finish_reasons and not self._open_choices:
            self.done = True
        else:
            self.failure = StreamFailure("the stream ended without a finish reason")
        return relayed

    def _end_of_last_event(self, text: bytes | bytearray, start: int) -> int:
        """The place after the last event border at or after `start`, 0 when there is none."""
        if not self._carriage:
            found = text.rfind(b"\n\n", start)
            return found + 2 if found >= 0 else 0
        while start > 0 and text[start] in b"\r\n":
            start -= 1  # begin inside a line: the end of a line is no blank line
        borders = _line_borders(bytes(text[start:]))
        return start + borders[-1][1] if borders else 0

    def _read_events(self, text: bytes) -> bytes:
        """Note every event of `text`, which ends in a border; return those to hand on."""
        if not self._carriage and text.find(b"\n\n") == len(text) - 2:
            return text if self._read_event(text) else b""
        borders = _line_borders(text) if self._carriage else _line_feed_borders(text)
        position = 0
        kept: list[bytes] | None = None
        for end, after in borders:
            keep = self._read_event(text[position:end])
            if not keep and kept is None:
                kept = [text[:position]]
            elif keep and kept is not None:
                kept.append(text[position:after])
            position = after
            if self.done or self.failure:
                break
        return text if kept is None else b"".join(kept)

    def _read_event(self, block: bytes) -> bool:
        """Note one event; whether to hand it on."""
        block = block.strip(b"\r\n")
        if len(block) > self._max_event_bytes:
            self._check_size(len(block))
            return False
        data = block[6:] if block.startswith(b"data: ") and not (b"\n" in block or b"\r" in block) else _data_of(block)
        if not data:
            return True  # a comment or a ping keeps the client's connection alive as well
        try:
            event = orjson.loads(data)
            keep = self._note(event)
        except orjson.JSONDecodeError:
            if data.strip() == b"[DONE]":
                self.done = True
            else:
                self.failure = StreamFailure("an event is not JSON", data=data)
            return False
        except (AttributeError, TypeError):
            self.failure = StreamFailure("an event is not a chat completion chunk", data=data)
            return False
        if self.failure is None:
            self.events += 1
        return keep

    def _note(self, event: dict[str, Any]) -> bool:
        """Take down what a chunk says; whether to hand it on. A chunk of another shape raises what Python raises."""
        if (error := event.get("error")) or event.get("object") == "error":
            error = error or event
            error = error if isinstance(error, dict) else {"message": str(error)}
            self.failure = StreamFailure(f"the provider sent an error: {error.get('message', 'no message')}", error)
            return False
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.raw_usage = usage
        if tier := event.get("service_tier"):
            self.service_tier = tier
        choices = event.get("choices")
        if not choices:
            return self._keep_usage or not usage
        for choice in choices:
            if delta := choice.get("delta"):
                self._count(delta)
            index = choice.get("index", 0)
            if reason := choice.get("finish_reason"):
                self.finish_reasons[index] = reason
                self._open_choices.discard(index)
            elif index not in self.finish_reasons:
                self._open_choices.add(index)
        return True

    def _count(self, delta: dict[str, Any]) -> None:
        if content := delta.get("content"):
            self.output_characters += len(content) if isinstance(content, str) else _characters(content)
        # Some servers send the same thought under both names.
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            length = _characters(thought)
            self.output_characters += length
            self.reasoning_characters += length
        if refusal := delta.get("refusal"):
            self.output_characters += _characters(refusal)
        for tool_call in delta.get("tool_calls") or ():
            function = tool_call.get("function") or {}
            self.output_characters += _characters(function.get("name")) + _characters(function.get("arguments"))

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            self._rest = bytearray()
            self.failure = StreamFailure(f"an event is larger than {self._max_event_bytes} bytes")


def _line_feed_borders(text: bytes) -> list[tuple[int, int]]:
    borders = []
    end = text.find(b"\n\n")
    while end >= 0:
        borders.append((end, end + 2))
        end = text.find(b"\n\n", end + 2)
    return borders


def _line_borders(text: bytes) -> list[tuple[int, int]]:
    """Blank lines where lines may end in any of the three ways: where each begins and ends."""
    borders = []
    position = 0
    for line in text.splitlines(keepends=True):
        after = position + len(line)
        if line in _BLANK_LINES:
            borders.append((position, after))
        position = after
    return borders


def _data_of(block: bytes) -> bytes | None:
    """The `data` field of an event by the rules of the event stream format; None when it has none (a comment)."""
    lines = block.removeprefix(_BYTE_ORDER_MARK).splitlines()
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(data) if data else None


def _is_whole(block: bytes) -> bool:
    """Whether a last block without its border is an event all the same, and not the torn start of one."""
    data = _data_of(block)
    if data is None or data.strip() == b"[DONE]":
        return True
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _characters(value: object) -> int:
    """Characters in a text, or in the texts of a list of content parts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(_characters(part) for part in value)
    if isinstance(value, dict):
        return _characters(value.get("text")) + _characters(value.get("thinking"))
    return 0
