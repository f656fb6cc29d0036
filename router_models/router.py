"""Scores how hard a request is, in under a millisecond with numpy alone; scoring never raises, bad artifacts never load.

router = Router.load()
score = router.score_prompt("What is 2+2?")
score.difficulty, score.quality["economy"].p, score.expected_output_tokens["premium"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from router_models.artifact import HEADS, Artifact, load
from router_models.features import DENSE_NAMES, Features, Floats, extract, word_places
from router_models.request import RequestText
from router_models.tiers import TIERS, Tier

Unfamiliar = Literal["no_text", "images", "unseen_words", "unlike_training"]
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
    `familiarity` is the probability that prompts like this one were in the training data: the lower, the nearer the
    qualities are to the average and the wider their intervals. `unfamiliar` names what is most unlike that data.
    """

    difficulty: float
    quality: dict[Tier, Interval]
    expected_output_tokens: dict[Tier, float]
    artifact: str
    familiarity: float
    unfamiliar: tuple[Unfamiliar, ...]

    @property
    def out_of_distribution(self) -> bool:
        """Whether the prompt is unlike the training data; its familiarity then counts as 0."""
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
            "familiarity": round(self.familiarity, 4),
            "out_of_distribution": self.out_of_distribution,
            "unfamiliar": list(self.unfamiliar),
        }


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's push, in logits, on how easy the request looks; positive speaks for a good answer from any tier."""

    feature: str
    value: float
    push: float


@dataclass(frozen=True, slots=True)
class _View:
    """A prompt seen through the artifact: what its hashed features add to the heads, its standardised dense features,
    the evidence for each domain from words and from dense features, and the domains' shares, which sum to one."""

    hashed: Floats
    standard: Floats
    words: Floats
    manner: Floats
    shares: Floats


class Router:
    """A loaded artifact, ready to score; immutable and safe to share between threads."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._weights = weights = artifact.weights
        self._domain_slope = weights.domain_slope.reshape(len(artifact.domains), -1)
        # Plain floats: faster than indexing arrays one number at a time.
        curves = np.stack((weights.slope, weights.offset, weights.half_width), axis=-1)
        self._curves: list[list[list[float]]] = curves.transpose(1, 0, 2).tolist()
        self._token_factor: list[float] = weights.token_factor.tolist()
        self._signal_weights: list[float] = weights.familiarity.tolist()
        self._limits: list[float] = weights.limits.tolist()

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
        view = self._view(features)
        unseen = self.unseen_share(features)
        known = self._familiarity(view, unseen)
        unfamiliar = self._unfamiliar(request, features, unseen, known)
        return self._assemble(self._heads(view), 0.0 if unfamiliar else known, unfamiliar)

    def explain(self, request: RequestText, top: int = 10) -> list[Contribution]:
        """The `top` features that moved the score most, largest first.

        Hashed words are spelled out again; "resembles NAME" is a domain of the training data with its weight.
        """
        weights = self._weights
        features = extract(request)
        view = self._view(features)
        values, standard, shares = hashed_values(features, weights.idf), view.standard, view.shares
        slopes = weights.dense[:, 0] + shares @ weights.domain_slope[:, :, 0]
        spelled = _spelled(request.text, set(features.buckets.tolist()))
        names = (
            *(f"resembles {domain}" for domain in self._artifact.domains),
            *DENSE_NAMES,
            *(spelled.get(bucket, f"#{bucket}") for bucket in features.buckets.tolist()),
        )
        found = np.concatenate((shares, standard, values))
        pushes = found * np.concatenate((weights.domain_offset[:, 0], slopes, weights.hashed[features.buckets, 0]))
        order = np.argsort(-np.abs(pushes), kind="stable")[:top].tolist()
        return [Contribution(names[place], float(found[place]), float(pushes[place])) for place in order]

    def unseen_share(self, features: Features) -> float:
        """Share of the text's words that never occurred in training, 0..1; 0 for a text without words."""
        if features.words.size == 0:
            return 0.0
        places = word_places(features.words)
        known = self._weights.seen[places >> 3] >> (places & 7).astype(np.uint8) & 1
        return 1.0 - float(known.mean())

    def _view(self, features: Features) -> _View:
        weights = self._weights
        standard = standardised(features.dense, weights.centre, weights.scale)
        hashed = hashed_values(features, weights.idf) @ weights.hashed[features.buckets]
        words = hashed[HEADS:]
        manner: Floats = standard @ weights.domain_linear + standard**2 @ weights.domain_square
        manner += weights.domain_bias
        logs: Floats = words + manner
        likely: Floats = np.exp(logs - logs.max()).astype(np.float32)
        return _View(hashed[:HEADS], standard, words, manner, likely / likely.sum())

    def _heads(self, view: _View) -> list[float]:
        """Ease, then logs of output tokens by tier."""
        weights = self._weights
        slopes = weights.dense + (view.shares @ self._domain_slope).reshape(weights.dense.shape)
        total = view.hashed + view.standard @ slopes + view.shares @ weights.domain_offset + weights.bias
        heads: list[float] = total.tolist()
        return heads

    def _familiarity(self, view: _View, unseen: float) -> float:
        best = int(view.shares.argmax())
        odds = float(bounded_log_odds(view.shares[best]))
        signals = (odds, float(view.words.max()), float(view.manner[best]), unseen, 1.0)
        return _sigmoid(sum(weight * signal for weight, signal in zip(self._signal_weights, signals, strict=True)))

    def _unfamiliar(
        self, request: RequestText, features: Features, unseen: float, familiarity: float
    ) -> tuple[Unfamiliar, ...]:
        unseen_limit, familiarity_limit = self._limits
        reasons: list[Unfamiliar] = []
        if features.words.size == 0:
            reasons.append("no_text")
        if request.images:
            reasons.append("images")
        if features.words.size >= WORDS_TO_JUDGE and unseen > unseen_limit:
            reasons.append("unseen_words")
        if familiarity < familiarity_limit:
            reasons.append("unlike_training")
        return tuple(reasons)

    def _assemble(self, heads: list[float], familiarity: float, unfamiliar: tuple[Unfamiliar, ...]) -> Score:
        ease, *logs = heads
        quality: dict[Tier, Interval] = {}
        tokens: dict[Tier, float] = {}
        best = Interval(0.0, 0.0, 0.0)
        for tier, (far, near), log_tokens, factor in zip(TIERS, self._curves, logs, self._token_factor, strict=True):
            slope, offset, half = (a + familiarity * (b - a) for a, b in zip(far, near, strict=True))
            logit = slope * ease + offset
            # A stronger tier is never predicted to be worse: where the curves cross, one of them lacks data.
            best = Interval(
                max(best.p, _probability(logit)),
                max(best.low, _probability(logit - half)),
                max(best.high, _probability(logit + half)),
            )
            quality[tier] = best
            tokens[tier] = min(max(exp(min(log_tokens, 12.0)) * factor, TOKEN_BOUNDS[0]), TOKEN_BOUNDS[1])
        return Score(1.0 - quality["economy"].p, quality, tokens, self.version, familiarity, unfamiliar)


def bounded_log_odds(share: float | NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """log(share / (1 - share)) kept within -3..8, beyond which it says nothing more; any shape."""
    share = np.asarray(share, dtype=np.float64)
    odds: NDArray[np.float64] = np.clip(np.log(share / (1.0 - share + 1e-6)), -3.0, 8.0)
    return odds


def standardised(dense: Floats, centre: Floats, scale: Floats) -> Floats:
    """Dense features in standard deviations from the training mean, cut at DENSE_LIMIT; any leading shape."""
    cut: Floats = np.clip((dense - centre) / scale, -DENSE_LIMIT, DENSE_LIMIT)
    return cut


def hashed_values(features: Features, idf: Floats) -> Floats:
    """Values of the hashed features: 1 + log(count), divided by the length of the vector after idf weighting.

    `Weights.hashed` already carries the idf, so it appears here only in the length.
    """
    values: Floats = (1.0 + np.log(features.counts)).astype(np.float32)
    length = float(np.linalg.norm(values * idf[features.buckets]))
    return values / np.float32(length) if length > 0 else values


def _spelled(text: str, buckets: set[int]) -> dict[int, str]:
    """The words, or pairs of words, of a text by the bucket they fall into."""
    words = text.split()
    found: dict[int, str] = {}
    for piece in (*(f"{left} {right}" for left, right in pairwise(words)), *words):
        for bucket in extract(RequestText.from_prompt(piece)).buckets.tolist():
            if bucket in buckets:
                found[bucket] = piece
    return found


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + exp(-max(logit, -50.0)))


def _probability(logit: float) -> float:
    return min(max(_sigmoid(logit), FLOOR), 1.0 - FLOOR)
