"""Write OpenAI reply bodies: whole answers, stream chunks, usage."""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from local_engine.embedding import shortened
from local_engine.energy import EnergyMeter
from local_engine.openai_logprobs import LogprobText
from local_engine.request import FinishReason, Logprobs, Output
from local_engine.structured.message import CallDelta, Delta, MessageReader
from local_engine.wire.completion import EmbeddingCall

Kind = Literal["chat", "completion"]
Finish = FinishReason | Literal["tool_calls"]
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Choice:
    """What has arrived of one answer, divided by its reader. `calls` are tool calls as they are written in the reply."""

    reader: MessageReader = field(default_factory=MessageReader)
    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    logprob_characters: int = 0
    tokens: int = 0
    reasoning_tokens: int = 0
    cached: int = 0
    microjoules: int | None = None
    finish: Finish | None = None
    accepted_drafts: int = 0
    rejected_drafts: int = 0

    def take(self, output: Output) -> Delta:
        """Count an output of the engine and read its text; returns what that adds."""
        self.tokens += output.tokens
        self.accepted_drafts += output.accepted_drafts
        self.rejected_drafts += output.rejected_drafts
        self.cached = output.request.cached_tokens
        self.microjoules = output.request.microjoules
        self.logprobs += output.logprobs
        delta = self.reader.push(output.text, last=output.finish is not None)
        self.text += delta.content
        self.reasoning += delta.reasoning
        for call in delta.calls:
            if call.name is not None:
                function = {"name": call.name, "arguments": ""}
                self.calls.append({"id": call.id, "type": "function", "function": function})
            self.calls[call.index]["function"]["arguments"] += call.arguments
        if output.finish is not None:
            self.reasoning_tokens = output.reasoning_tokens
            self.finish = "tool_calls" if output.finish == "stop" and self.calls else output.finish
        return delta


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """The constant fields of one reply: its id and time are the same in every chunk."""

    kind: Kind
    model: str
    prompt_tokens: int
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    meter: EnergyMeter | None = None
    logprobs: LogprobText | None = None
    echo: str = ""

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        object.__setattr__(self, "id", f"{prefix}-{uuid.uuid4().hex}")

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        """The reply to a call that does not stream."""
        entries = [{"index": index, **self._answer(choice)} for index, choice in enumerate(choices)]
        return {**self._head("chat.completion"), "choices": entries, "usage": self.usage(choices)}

    def opening(self, index: int) -> bytes:
        """The first chunk of a choice: a chat's role, or the prompt that a completion begins with."""
        if self.kind == "completion":
            return self._chunk([{"index": index, "text": self.echo, "logprobs": None, "finish_reason": None}])
        return self._chunk([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def piece(self, index: int, choice: Choice, delta: Delta, logprobs: Sequence[Logprobs]) -> bytes:
        """A chunk with what was added, an end, or both."""
        listed = self._listed(logprobs, choice)
        if self.kind == "chat":
            content: dict[str, Any] = {"delta": _chat_delta(delta)}
        else:
            content = {"text": delta.content}
        return self._chunk([{"index": index, **content, "logprobs": listed, "finish_reason": choice.finish}])

    def usage_chunk(self, choices: list[Choice]) -> bytes:
        """The last chunk before the end: no choices, only usage."""
        return self._chunk([], usage=self.usage(choices))

    def usage(self, choices: list[Choice]) -> dict[str, Any]:
        """Tokens of the call: the prompt counts once, the answers add up, end tokens included.

        What is cached is what the first choice found; the others share the same prompt, which is counted only once.
        Accepted drafts are among the completion tokens, rejected ones are nowhere: they cost the caller nothing.
        """
        completion = sum(choice.tokens for choice in choices)
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": choices[0].cached},
            "completion_tokens_details": {
                "reasoning_tokens": sum(choice.reasoning_tokens for choice in choices),
                "accepted_prediction_tokens": sum(choice.accepted_drafts for choice in choices),
                "rejected_prediction_tokens": sum(choice.rejected_drafts for choice in choices),
            },
        }
        energy = self.energy(choices)
        return usage if energy is None else {**usage, "energy": energy}

    def energy(self, choices: list[Choice]) -> dict[str, Any] | None:
        """What all choices took together; None where nobody knows."""
        known = [choice.microjoules for choice in choices if choice.microjoules is not None]
        return self.meter.report(sum(known)) if self.meter is not None and known else None

    def _answer(self, choice: Choice) -> dict[str, Any]:
        listed = self._listed(choice.logprobs, None)
        if self.kind == "completion":
            return {"text": self.echo + choice.text, "logprobs": listed, "finish_reason": choice.finish}
        content = None if choice.calls and not choice.text else choice.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if choice.reasoning:
            message["reasoning_content"] = choice.reasoning
        if choice.calls:
            message["tool_calls"] = choice.calls
        return {"message": message, "logprobs": listed, "finish_reason": choice.finish}

    def _listed(self, logprobs: Sequence[Logprobs], choice: Choice | None) -> dict[str, Any] | None:
        """Log probabilities as the reply has them; `choice` remembers where in a streamed completion the next token begins."""
        if self.logprobs is None:
            return None
        if self.kind == "chat":
            return self.logprobs.chat(logprobs)
        offset = 0 if choice is None else choice.logprob_characters
        if choice is not None:
            choice.logprob_characters += self.logprobs.length(logprobs)
        return self.logprobs.completion(logprobs, offset)

    def _head(self, chat_object: str) -> dict[str, Any]:
        name = chat_object if self.kind == "chat" else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = {**self._head("chat.completion.chunk"), "choices": choices}
        if usage is not None:
            body["usage"] = usage
        return sse(body)


def embedding_reply(
    call: EmbeddingCall, vectors: Sequence[Tensor], model: str, tokens: int, energy: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The reply to an embedding call; base64 is that of the numbers as little-endian float32."""
    entries = []
    for index, vector in enumerate(vectors):
        kept = shortened(vector, call.dimensions)
        raw = struct.pack(f"<{kept.numel()}f", *kept.tolist())
        shown = kept.tolist() if call.encoding == "float" else base64.b64encode(raw).decode()
        entries.append({"object": "embedding", "index": index, "embedding": shown})
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if energy is not None:
        usage["energy"] = energy
    return {"object": "list", "data": entries, "model": model, "usage": usage}


def _chat_delta(delta: Delta) -> dict[str, Any]:
    written: dict[str, Any] = {}
    if delta.reasoning:
        written["reasoning_content"] = delta.reasoning
    if delta.content:
        written["content"] = delta.content
    if delta.calls:
        written["tool_calls"] = [_call_delta(call) for call in delta.calls]
    return written


def _call_delta(call: CallDelta) -> dict[str, Any]:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def sse(body: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
