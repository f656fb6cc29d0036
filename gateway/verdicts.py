"""What is said about an answer: by whoever got it (feedback), or by asking another tier the same and comparing (a shadow)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Source = Literal["feedback", "exact", "judge", "human"]
"""Where a label comes from: a client, the comparison of final answers, a model that judged, a person who judged a pair."""
SOURCES: tuple[Source, ...] = get_args(Source)

Compare = Literal["exact", "judge", "human"]

Verdict = Literal["agree", "answer", "shadow", "neither", "incomparable"]
"""agree: both are as good; answer: what the client got is better; shadow: the other one is; neither: both are bad."""

ShadowStatus = Literal["compared", "incomparable", "waiting", "expired", "failed"]
"""waiting: for a person; expired: nobody judged it in time; failed: the other tier or the judge gave no usable answer."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says of an answer: 0 is bad, 1 is good. `author` is the id of the key it came with; the same author's
    later word replaces the earlier one. The request may not have arrived in SQL yet; `tenant` and `project` say whose it
    has to be. A key without a project may speak of every request of its tenant.
    """

    request_id: str
    tenant: str
    project: str | None
    policy: str
    author: str
    score: float
    comment: str | None
    given_at: float


@dataclass(frozen=True, slots=True)
class Label:
    """How good a model's answer to a request was, 0 to 1."""

    model: str
    tier: str
    score: float


@dataclass(frozen=True, slots=True)
class Texts:
    """A pair for a person to judge; kept until `expires_at` at the longest."""

    prompt: str
    answer: str
    shadow: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Shadow:
    """The answer of another tier to a request, and how it compares. `cost` is pico-USD at the providers, judge included;
    `agreement` is 1 when both are as good, 0 when one is better, None when that is not known.
    """

    request_id: str
    started_at: float
    tenant: str
    policy: str
    answered_model: str
    answered_tier: str
    shadow_request_id: str | None
    model: str
    tier: str
    compare: Compare
    status: ShadowStatus
    verdict: Verdict | None
    cost: int
    input_tokens: int
    output_tokens: int
    created_at: float
    error_code: str | None = None
    judge: str | None = None
    labels: tuple[Label, ...] = ()
    texts: Texts | None = None

    @property
    def agreement(self) -> float | None:
        """1, 0 or None."""
        return None if self.verdict in (None, "incomparable") else float(self.verdict in ("agree", "neither"))


def labels_for(verdict: Verdict, answered: tuple[str, str], shadow: tuple[str, str]) -> tuple[Label, ...]:
    """The labels that follow from a verdict; models are given with their tiers. Nothing follows from `incomparable`.

    A label is relative to the better answer of the two: 1 is as good as it.
    """
    scores = {"agree": (1.0, 1.0), "answer": (1.0, 0.0), "shadow": (0.0, 1.0), "neither": (0.0, 0.0)}.get(verdict)
    if scores is None:
        return ()
    return tuple(Label(*model, score) for model, score in zip((answered, shadow), scores, strict=True))
