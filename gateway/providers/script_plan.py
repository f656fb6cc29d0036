"""What one call to a scripted upstream does: exact bytes, pauses and breaks, from the script, the call's number and its body.

Pure: the in-process provider and the scripted server play the same plans, so what a test learns from one holds for the
other. The tokens a plan reports are the tokens it says it delivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.providers.script import Script

CREATED = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """Token counts of one call, as OpenAI counts them."""

    input: int
    output: int
    reasoning: int
    cached: int

    def usage(self) -> dict[str, Any]:
        """The `usage` object of the API."""
        return {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


@dataclass(frozen=True, slots=True)
class Begin:
    """Status and headers; `length` is None for a body of unknown length."""

    status: int
    content_type: str
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of the body, `repeat` times."""

    data: bytes
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause in seconds; infinity means that nothing comes any more."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Break:
    """The connection is closed in the middle of the body."""


Action = Begin | Send | Wait | Break


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call does. `delivered` counts once the last action is done; a failing plan delivers nothing."""

    actions: tuple[Action, ...]
    delivered: Delivered | None


def plan(script: Script, call_number: int, body: Mapping[str, Any], key: str = "") -> Plan:
    """The actions of the `call_number`-th call (from 1). `key` is what the caller authenticated with: failures quote it,
    as careless providers do.
    """
    failure = _failure(script, call_number, key)
    if failure is not None:
        return Plan(failure, None)
    parts = _Answer.of(script, call_number, body)
    broken = script.behaviour in {"cut", "wrong_json", "error_event", "huge"}
    actions = _stream_actions(script, parts, key) if body.get("stream") else _plain_actions(script, parts, key)
    return Plan(tuple(actions), None if broken else parts.delivered)


def pieces(text: str) -> list[str]:
    """A text in the pieces that are streamed one by one; each counts as a token."""
    return re.findall(r"\S+\s*|\s+", text)


@dataclass(frozen=True, slots=True)
class _Answer:
    head: dict[str, Any]
    message: dict[str, Any]
    deltas: tuple[dict[str, Any], ...]
    finish_reason: str
    choices: int
    delivered: Delivered
    usage: Mapping[str, Any]
    include_usage: bool

    @classmethod
    def of(cls, script: Script, call_number: int, body: Mapping[str, Any]) -> _Answer:
        text = pieces(script.reply if script.reply is not None else _last_user_text(body))
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        finish = "stop"
        if isinstance(limit, int) and script.tokens.output is None and limit < len(text):
            text, finish = text[:limit], "length"
        message: dict[str, Any] = {"role": "assistant", "content": "".join(text)}
        deltas: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in pieces(script.reasoning)]
        thought = len(deltas)
        if script.reasoning:
            message["reasoning_content"] = script.reasoning
        if script.tool_call:
            call = {"index": 0, "id": f"call_{call_number}", "type": "function"}
            function = {"name": script.tool_call["name"], "arguments": script.tool_call["arguments"]}
            message |= {"content": None, "tool_calls": [{"id": call["id"], "type": "function", "function": function}]}
            deltas.append({"tool_calls": [call | {"function": function | {"arguments": ""}}]})
            for piece in pieces(function["arguments"]):
                deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
            finish = "tool_calls"
        else:
            deltas += [{"content": piece} for piece in text]
        choices = body.get("n") if isinstance(body.get("n"), int) else 1
        options = body.get("stream_options")
        reasoning = thought if script.tokens.reasoning is None else script.tokens.reasoning
        spoken = len(deltas) - thought + reasoning
        delivered = Delivered(
            input=_words(body) if script.tokens.input is None else script.tokens.input,
            output=(spoken if script.tokens.output is None else script.tokens.output) * (choices or 1),
            reasoning=reasoning * (choices or 1),
            cached=script.tokens.cached,
        )
        head = {"id": f"chatcmpl-scripted-{call_number}", "created": CREATED, "model": body.get("model")}
        if script.service_tier is not None:
            head["service_tier"] = script.service_tier
        wanted = isinstance(options, dict) and bool(options.get("include_usage")) and script.usage != "omit"
        usage = script.usage if isinstance(script.usage, Mapping) else delivered.usage()
        return cls(head, message, tuple(deltas), finish, choices or 1, delivered, usage, wanted)

    def chunk(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        """One event of the stream."""
        return _event({**self.head, "object": "chat.completion.chunk", "choices": choices, **extra})

    def chunks(self) -> Iterator[bytes]:
        """The events up to the finish reasons, `[DONE]` and usage not included."""
        every = range(self.choices)
        yield self.chunk([{"index": i, "delta": {"role": "assistant", "content": ""}} for i in every])
        for delta in self.deltas:
            yield self.chunk([{"index": i, "delta": delta, "finish_reason": None} for i in every])
        yield self.chunk([{"index": i, "delta": {}, "finish_reason": self.finish_reason} for i in every])


def _failure(script: Script, call_number: int, key: str) -> tuple[Action, ...] | None:
    """The actions of a call that gets no answer at all, None when it gets one."""
    said = f"scripted failure; you came with {key}" if key else "scripted failure"
    if script.behaviour == "hang":
        return (Wait(float("inf")),)
    if script.fails(call_number):
        return _error(script.status or 500, said, "server_error", "scripted_failure")
    if script.behaviour == "rate_limited":
        seconds = script.retry_after
        headers = {"retry-after": f"{max(1, round(seconds))}", "retry-after-ms": f"{round(seconds * 1000)}"}
        return _error(script.status or 429, said, "rate_limit_error", "rate_limit_exceeded", headers)
    if script.behaviour == "unauthorized":
        return _error(
            script.status or 401, f"Incorrect API key provided: {key}", "authentication_error", "invalid_api_key"
        )
    if script.behaviour == "refuse":
        return _error(script.status or 400, said, "invalid_request_error", "scripted_refusal")
    return None


def _plain_actions(script: Script, answer: _Answer, key: str) -> Iterator[Action]:
    choices = [
        {"index": i, "message": answer.message, "finish_reason": answer.finish_reason} for i in range(answer.choices)
    ]
    payload: dict[str, Any] = {**answer.head, "object": "chat.completion", "choices": choices}
    if script.usage != "omit":
        payload["usage"] = answer.usage
    if script.behaviour == "error_event":
        payload = _error_payload(f"scripted failure; you came with {key}", "server_error", "scripted_failure")
    data = orjson.dumps(payload)
    sent = data[: len(data) // 2] if script.behaviour in {"cut", "wrong_json"} else data
    length = len(sent) if script.behaviour == "wrong_json" else len(data)
    tokens = len(answer.deltas)
    first, each = script.pauses
    if pause := first + each * max(0, tokens - 1):
        yield Wait(pause)
    if script.behaviour == "huge":
        yield Begin(200, "application/json")
        yield Send(b" " * 2**16, repeat=script.huge_bytes // 2**16)
        return
    yield Begin(200, "application/json", length if script.framing == "length" else None)
    yield Send(sent)
    if script.behaviour == "cut":
        yield Break()


def _stream_actions(script: Script, answer: _Answer, key: str) -> Iterator[Action]:
    ending = script.behaviour if script.behaviour in {"cut", "wrong_json", "error_event", "huge"} else None
    yield Begin(200, "text/event-stream")
    for number, chunk in enumerate(answer.chunks()):
        if ending and number == script.break_after:
            break
        if pause := script.pauses[number > 0]:
            yield Wait(pause)
        yield Send(chunk)
    if ending == "cut":
        yield Break()
    elif ending == "wrong_json":
        yield Send(b'data: {"choices": [{"delta": {"content": "\n\n')
    elif ending == "error_event":
        yield Send(_event(_error_payload(f"scripted failure; you came with {key}", "server_error", "scripted_failure")))
    elif ending == "huge":
        yield Send(b'data: {"padding": "')
        yield Send(b"x" * 2**16, repeat=script.huge_bytes // 2**16)
    else:
        if answer.include_usage:
            yield Send(answer.chunk([], usage=answer.usage))
        yield Send(b"data: [DONE]\n\n")


def _error(
    status: int, message: str, kind: str, code: str, headers: Mapping[str, str] | None = None
) -> tuple[Action, ...]:
    data = orjson.dumps(_error_payload(message, kind, code))
    return (Begin(status, "application/json", len(data), headers or {}), Send(data))


def _error_payload(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def _texts(content: object) -> str:
    if isinstance(content, list):
        return " ".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return content if isinstance(content, str) else ""


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def _last_user_text(body: Mapping[str, Any]) -> str:
    users = [message for message in _messages(body) if message.get("role") == "user"]
    return (_texts(users[-1].get("content")) if users else "") or "ok"


def _words(body: Mapping[str, Any]) -> int:
    return max(1, sum(len(_texts(message.get("content")).split()) for message in _messages(body)))
