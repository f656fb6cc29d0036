"""Write OpenAI reply bodies: whole answers, stream chunks, usage."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from local_engine.energy import MICRO, EnergyMeter
from local_engine.request import FinishReason

Kind = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Choice:
    """What has arrived of one answer."""

    text: str = ""
    tokens: int = 0
    cached: int = 0
    microjoules: int | None = None
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """The constant fields of one reply: its id and time are the same in every chunk."""

    kind: Kind
    model: str
    prompt_tokens: int
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    meter: EnergyMeter | None = None

    def __post_init__(self) -> None:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        object.__setattr__(self, "id", f"{prefix}-{uuid.uuid4().hex}")

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        """The reply to a call that does not stream."""
        entries = [{"index": index, **self._answer(choice)} for index, choice in enumerate(choices)]
        return {**self._head("chat.completion"), "choices": entries, "usage": self.usage(choices)}

    def opening(self, index: int) -> bytes:
        """The first chunk of a chat choice: the role, before any token is known."""
        return self._chunk([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def piece(self, index: int, text: str, finish: FinishReason | None) -> bytes:
        """A chunk with text, an end, or both."""
        content = {"delta": {"content": text} if text else {}} if self.kind == "chat" else {"text": text}
        return self._chunk([{"index": index, **content, "logprobs": None, "finish_reason": finish}])

    def usage_chunk(self, choices: list[Choice]) -> bytes:
        """The last chunk before the end: no choices, only usage."""
        return self._chunk([], usage=self.usage(choices))

    def usage(self, choices: list[Choice]) -> dict[str, Any]:
        """Tokens of the call: the prompt counts once, the answers add up, end tokens included.

        What is cached is what the first choice found; the others share the same prompt, which is counted only once.
        """
        completion = sum(choice.tokens for choice in choices)
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": choices[0].cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        energy = self.energy(choices)
        return usage if energy is None else {**usage, "energy": energy}

    def energy(self, choices: list[Choice]) -> dict[str, Any] | None:
        """What all choices took together; None where nobody knows."""
        known = [choice.microjoules for choice in choices if choice.microjoules is not None]
        if self.meter is None or self.meter.source is None or not known:
            return None
        microjoules = sum(known)
        return {
            "joules": microjoules / MICRO,
            "co2e_grams": round(self.meter.grams(microjoules), 9),
            "estimated": self.meter.estimated,
            "source": self.meter.source.name,
        }

    def _answer(self, choice: Choice) -> dict[str, Any]:
        if self.kind == "chat":
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            return {"message": message, "logprobs": None, "finish_reason": choice.finish}
        return {"text": choice.text, "logprobs": None, "finish_reason": choice.finish}

    def _head(self, chat_object: str) -> dict[str, Any]:
        name = chat_object if self.kind == "chat" else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = {**self._head("chat.completion.chunk"), "choices": choices}
        if usage is not None:
            body["usage"] = usage
        return sse(body)


def sse(body: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
