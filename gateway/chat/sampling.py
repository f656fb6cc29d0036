"""Which requests another tier answers as well, and what their own answer was. The same id is always sampled alike."""

from __future__ import annotations

import hashlib

import orjson

from gateway.chat.request import ChatRequest
from gateway.config_shadow import Kind, ShadowSampling
from gateway.reasoning.answers import Answer, answer_of, answer_of_stream
from gateway.types import TIERS

MOST_BYTES = 256 * 1024
"""Of a request as it came, images and all, and of an answer; larger ones are not kept in memory for a sample."""


class Heard:
    """A sampled request: the rule it was sampled by, and its own answer as it goes by."""

    def __init__(self, rule: ShadowSampling) -> None:
        self.rule = rule
        self._parts: list[bytes] = []
        self._size = 0

    def hear(self, events: bytes) -> None:
        """Take down a part of a stream."""
        self._size += len(events)
        if self._size <= MOST_BYTES:
            self._parts.append(events)

    def fits(self, body: bytes | None) -> bool:
        """Whether the answer was short enough to be kept."""
        return (self._size if body is None else len(body)) <= MOST_BYTES

    def answer(self, body: bytes | None) -> Answer | None:
        """The answer: of the whole `body`, or of the stream that was heard. None when it was too long to be kept."""
        if not self.fits(body):
            return None
        return answer_of(orjson.loads(body)) if body is not None else answer_of_stream(b"".join(self._parts))


def sampled(request: ChatRequest, rule: ShadowSampling | None) -> Heard | None:
    """Whether this request is a part of its policy's sample."""
    if rule is None or request.beside or request.size > MOST_BYTES or kind_of(request.model) not in rule.only:
        return None
    return Heard(rule) if place_of(request.request_id) < rule.share else None


def kind_of(name: str) -> Kind:
    """What a request asks for by this name."""
    return "auto" if name.partition(":")[0] == "auto" else "tier" if name in TIERS else "model"


def place_of(request_id: str) -> float:
    """A place in [0, 1) that follows from an id and from nothing else."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"shadow").digest()
    return int.from_bytes(digest, "big") / 2**64


def other_tier(answered: str, rule: ShadowSampling, tiers: frozenset[str]) -> str | None:
    """Which of these tiers is asked as well; None when there is no other one, or the one to ask has answered."""
    if rule.tier != "other":
        return rule.tier if rule.tier in tiers and rule.tier != answered else None
    ordered = sorted(tiers, key=TIERS.index)
    if not ordered:
        return None
    chosen = ordered[-1] if answered != ordered[-1] else ordered[0]
    return chosen if chosen != answered else None
