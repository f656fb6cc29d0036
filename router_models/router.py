"""Scores how hard a request is, in well under a millisecond with numpy alone; scoring never raises, loading refuses bad artifacts.

    router = Router.load()
    score = router.score_prompt("What is 2+2?")
    score.difficulty, score.quality["economy"].p, score.expected_output_tokens["premium"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any, Literal

import numpy as np

from router_models.artifact import Artifact, load
from router_models.features import DENSE_NAMES, Features, Floats, extract, word_places
from router_models.request import RequestText
from router_models.tiers import TIERS, Tier

Unfamiliar = Literal["no_text", "images", "unseen_words"]
# A dense feature counts at most this many standard deviations, which bounds what odd text can do to the score.
DENSE_LIMIT = 3.0
# Below this many words the share of unseen ones says nothing.
WORDS_TO_JUDGE = 4
# Never certain: keeps logits finite and prices of failure above zero.
FLOOR = 0.005
TOKEN_BOUNDS = (1.0, 16_384.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A probability with the range (nominally 90 %) in which the true rate of prompts like this one lies."""

    p: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """What the router believes of one request.

    `quality[tier]` is the probability that a model of that tier answers well, never falling from one tier to the
    next. `difficulty` is 1 - quality["economy"].p. `expected_output_tokens[tier]` are visible output tokens.
    `unfamiliar` names why the prompt is unlike the training data; `out_of_distribution` is true when there is a reason.
    """

    difficulty: float
    quality: dict[Tier, Interval]
    expected_output_tokens: dict[Tier, float]
    artifact: str
    unfamiliar: tuple[Unfamiliar, ...]

    @property
    def out_of_distribution(self) -> bool:
        """Whether the intervals are the wide ones, for prompts unlike the training data."""
        return bool(self.unfamiliar)

    def as_dict(self) -> dict[str, Any]:
        """The score as JSON-ready values, rounded to what is meaningful."""
        return {
            "difficulty": round(self.difficulty, 4),
            "quality": {
                tier: {"p": round(each.p, 4), "low": round(each.low, 4), "high": round(each.high, 4)}
                for tier, each in self.quality.items()
            },
            "expected_output_tokens": {tier: round(n, 1) for tier, n in self.expected_output_tokens.items()},
            "artifact": self.artifact,
            "out_of_distribution": self.out_of_distribution,
            "unfamiliar": list(self.unfamiliar),
        }


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's push on the raw logit of a tier's quality; positive speaks for a good answer."""

    feature: str
    value: float
    weight: float


class Router:
    """A loaded artifact, ready to score; immutable and safe to share between threads."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._weights = artifact.weights

    @classmethod
    def load(cls, path: Path | None = None) -> Router:
        """Load the artifact at `path`, or the bundled one. Raises a subclass of ArtifactError."""
        return cls(load(path))

    @property
    def version(self) -> str:
        """Version of the artifact, as it appears in every score."""
        return self._artifact.version

    @property
    def card(self) -> dict[str, Any]:
        """What the training wrote down about the artifact."""
        return dict(self._artifact.card)

    def score_prompt(self, prompt: str) -> Score:
        """Score one user message of plain text."""
        return self.score(RequestText.from_prompt(prompt))

    def score_messages(
        self, messages: Sequence[Mapping[str, Any]], *, tools: bool = False, json_schema: bool = False
    ) -> Score:
        """Score OpenAI-style chat messages; see RequestText.from_messages for what is read."""
        return self.score(RequestText.from_messages(messages, tools=tools, json_schema=json_schema))

    def score(self, request: RequestText) -> Score:
        """Score one request."""
        features = extract(request)
        unfamiliar = self._unfamiliar(request, features)
        raw = self._heads(features).tolist()
        return self._assemble(raw, unfamiliar)

    def explain(self, request: RequestText, tier: Tier = "economy", top: int = 10) -> list[Contribution]:
        """The `top` features that moved the raw logit of `tier` most, largest first; hashed words appear as words."""
        column = TIERS.index(tier)
        features = extract(request)
        standard = self._standard(features.dense)
        pushes = [
            Contribution(name, float(value), float(value * weight))
            for name, value, weight in zip(DENSE_NAMES, standard, self._weights.dense[:, column], strict=True)
        ]
        values = self._hashed_values(features)
        spelled = spell(request.text, features.buckets.tolist())
        for bucket, value in zip(features.buckets.tolist(), values.tolist(), strict=True):
            weight = float(self._weights.hashed[bucket, column])
            pushes.append(Contribution(spelled.get(bucket, f"#{bucket}"), value, value * weight))
        return sorted(pushes, key=lambda each: -abs(each.weight))[:top]

    def _standard(self, dense: Floats) -> Floats:
        return np.clip((dense - self._weights.centre) / self._weights.scale, -DENSE_LIMIT, DENSE_LIMIT)

    def _hashed_values(self, features: Features) -> Floats:
        return hashed_values(features, self._weights.idf)

    def _heads(self, features: Features) -> Floats:
        """Raw logits of quality and logs of output tokens, shape (2T,)."""
        weights = self._weights
        hashed = self._hashed_values(features) @ weights.hashed[features.buckets]
        total: Floats = hashed + self._standard(features.dense) @ weights.dense + weights.bias
        return total

    def _unfamiliar(self, request: RequestText, features: Features) -> tuple[Unfamiliar, ...]:
        reasons: list[Unfamiliar] = []
        if features.words.size == 0:
            reasons.append("no_text")
        if request.images:
            reasons.append("images")
        if features.words.size >= WORDS_TO_JUDGE and self.unseen_share(features) > self._weights.unseen_limit[0]:
            reasons.append("unseen_words")
        return tuple(reasons)

    def unseen_share(self, features: Features) -> float:
        """Share of the text's words that never occurred in training, 0..1."""
        places = word_places(features.words)
        known = self._weights.seen[places >> 3] >> (places & 7).astype(np.uint8) & 1
        return 1.0 - float(known.mean())

    def _assemble(self, raw: list[float], unfamiliar: tuple[Unfamiliar, ...]) -> Score:
        weights = self._weights
        quality: dict[Tier, Interval] = {}
        tokens: dict[Tier, float] = {}
        best = Interval(0.0, 0.0, 0.0)
        for i, tier in enumerate(TIERS):
            logit = float(np.interp(raw[i], weights.calibration_logit[i], weights.calibration_value[i]))
            half = float(weights.half_width[1 if unfamiliar else 0, i])
            mine = (_probability(logit), _probability(logit - half), _probability(logit + half))
            # A stronger tier is never predicted to be worse: a dip is noise between heads, not knowledge.
            best = Interval(max(best.p, mine[0]), max(best.low, mine[1]), max(best.high, mine[2]))
            quality[tier] = best
            mean = exp(min(max(raw[len(TIERS) + i], 0.0), 12.0)) * float(weights.token_factor[i])
            tokens[tier] = min(max(mean, TOKEN_BOUNDS[0]), TOKEN_BOUNDS[1])
        return Score(1.0 - quality["economy"].p, quality, tokens, self.version, unfamiliar)


def hashed_values(features: Features, idf: Floats) -> Floats:
    """Values of the hashed features: 1 + log(count), divided by the length of the vector after idf weighting.

    `Weights.hashed` already carries the idf, so it appears here only in the length.
    """
    values: Floats = 1.0 + np.log(features.counts)
    length = float(np.linalg.norm(values * idf[features.buckets]))
    return values / length if length > 0 else values


def spell(text: str, buckets: Sequence[int]) -> dict[int, str]:
    """Words or pairs of words of `text` behind hashed buckets, for explanations only."""
    wanted = set(buckets)
    words = text.split()
    found: dict[int, str] = {}
    for piece in (*words, *(f"{left} {right}" for left, right in zip(words, words[1:], strict=False))):
        for bucket in extract(RequestText.from_prompt(piece)).buckets.tolist():
            if bucket in wanted and len(found.get(bucket, piece)) >= len(piece):
                found[bucket] = piece
    return found


def _probability(logit: float) -> float:
    return min(max(1.0 / (1.0 + exp(-logit)), FLOOR), 1.0 - FLOOR)


def logit(p: float) -> float:
    """log(p / (1 - p)) with p kept away from 0 and 1."""
    p = min(max(p, FLOOR), 1.0 - FLOOR)
    return log(p / (1.0 - p))
