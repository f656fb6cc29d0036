"""One reply of the replay upstream on the wire, and the upstream's own count of the replies that ended."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TextIO

from benchmarks.recorded_answers import Answer

WORDS_PER_CHUNK = 4
CREATED = 1_700_000_000  # fixed, so that two runs give the same bytes


@dataclass(frozen=True)
class Reply:
    """One reply to send: a recorded answer, what it counts in tokens, and how many seconds it takes."""

    id: str
    model: str
    stream: bool
    include_usage: bool
    answer: Answer
    cached_tokens: int
    reasoning_tokens: int
    seconds: float

    def frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """What a whole reply and a chunk of a stream have in common."""
        return {"id": self.id, "object": kind, "created": CREATED, "model": self.model, "choices": choices}

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage: cached is a part of the prompt's tokens, reasoning a part of the completion's."""
        return {
            "prompt_tokens": self.answer.input_tokens,
            "completion_tokens": self.answer.output_tokens,
            "total_tokens": self.answer.input_tokens + self.answer.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens, "audio_tokens": 0},
        }

    def frames(self) -> list[dict[str, Any]]:
        """The chunks of this reply as a stream, as OpenAI sends them; the usage comes last when it was asked for."""
        pieces = re.findall(rf"(?:\s*\S+){{1,{WORDS_PER_CHUNK}}}\s*|\s+", self.answer.text)
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        no_usage = {"usage": None} if self.include_usage else {}
        frames = [self.frame("chat.completion.chunk", [choice]) | no_usage for choice in choices]
        if self.include_usage:
            frames.append(self.frame("chat.completion.chunk", []) | {"usage": self.usage()})
        return frames


@dataclass(frozen=True)
class Ended:
    """One reply that ended: `delivered` to its last byte, or its client `disconnected` before it."""

    id: str
    outcome: Literal["delivered", "disconnected"]
    model: str
    recorded_model: str
    dataset: str
    prompt_id: str
    stream: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass
class Delivered:
    """What was delivered, in memory and (when a file is given) one JSON line per reply, flushed before the next."""

    log: TextIO | None = None
    ended: list[Ended] = field(default_factory=list)

    def add(self, reply: Reply, complete: bool) -> None:
        """Count one reply that ended."""
        one = Ended(
            id=reply.id,
            outcome="delivered" if complete else "disconnected",
            model=reply.model,
            recorded_model=reply.answer.model,
            dataset=reply.answer.dataset,
            prompt_id=reply.answer.prompt_id,
            stream=reply.stream,
            input_tokens=reply.answer.input_tokens,
            cached_tokens=reply.cached_tokens,
            output_tokens=reply.answer.output_tokens,
            reasoning_tokens=reply.reasoning_tokens,
        )
        self.ended.append(one)
        if self.log:
            self.log.write(json.dumps(asdict(one)) + "\n")
            self.log.flush()

    def summary(self) -> dict[str, Any]:
        """The body of `GET /replay/delivered`: totals over delivered replies, per model too, and every reply."""
        done = [one for one in self.ended if one.outcome == "delivered"]
        return {
            **_totals(done),
            "disconnected": len(self.ended) - len(done),
            "models": {
                name: _totals([one for one in done if one.model == name]) for name in {one.model for one in done}
            },
            "replies": [asdict(one) for one in self.ended],
        }


def _totals(ended: list[Ended]) -> dict[str, int]:
    kinds = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    return {"requests": len(ended)} | {kind: sum(getattr(one, kind) for one in ended) for kind in kinds}
