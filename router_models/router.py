"""Scores how hard a request is, in under a millisecond with numpy alone; scoring never raises, bad artifacts never load.

router = Router.load()
score = router.score_prompt("What is 2+2?")
score.difficulty, score.quality["economy"].p, score.expected_output_tokens["premium"]
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import field
from math import exp, log
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from router_models.abilities import Ability, Interval, mean_widths, probability
from router_models.artifact import LENGTH, OWN_LEVEL, REASONING, THINKING, Artifact, load
from router_models.curves import OWN_POWER, TOKEN_BOUNDS
from router_models.embedder import Embedder
from router_models.explain import Contribution, Explanation, explanation
from router_models.features import Features, Floats, extract
from router_models.place import Landmarks, Placed, ramps, signals_of
from router_models.request import RequestText
from router_models.script import MOST_OTHER_SCRIPT
from router_models.tiers import TIERS, Tier
from router_models.value import value

Unfamiliar = Literal["no_text", "images", "other_script", "unseen_words", "unlike_training"]
# One unseen word can be a name or a slip; a second one in so few words is another language, or none.
UNSEEN_TO_JUDGE = 2
# A text of fewer words than this is judged by them alone: its shape is extreme whatever it says, and so it resembles nothing.
WORDS_TO_RESEMBLE = 4
# A thinking gain of less is within what differs between two runs of one model.
WORTH_THINKING = 0.05


@value
class Score:
    """What the router believes of one request.

    `quality[tier]` is the probability that a model of that tier answers well, never falling from one tier to the
    next. `difficulty` is 1 - quality["economy"].p. `expected_output_tokens[tier]` are visible output tokens.
    `thinking_gain`, -1..1, is how much more probable a good answer becomes when a model reasons at length before it answers;
    below 0 reasoning does harm. `expected_reasoning_tokens` is how long such reasoning is when it is written out. Both are
    weaker than the rest: see the artifact's card.
    `familiarity` is the probability that prompts like this one were in the training data: the lower, the nearer the
    qualities are to the average and the wider their intervals. `unfamiliar` names what is most unlike that data.
    `ease` is the main head behind the qualities, in logits, not yet calibrated. `rank` says how hard the prompt is among
    prompts of its kind, in logits: the score to send a fixed share of traffic up by, steadier than `difficulty` on unknown
    domains. `representation` is what single models are judged by: give the score to `Ability.quality`. `features` are what
    all this was computed from, to score the same request again later.
    """

    difficulty: float
    quality: dict[Tier, Interval]
    expected_output_tokens: dict[Tier, float]
    artifact: str
    familiarity: float
    unfamiliar: tuple[Unfamiliar, ...]
    ease: float
    rank: float
    representation: tuple[float, ...]
    thinking_gain: float
    expected_reasoning_tokens: float
    features: Features = field(compare=False, repr=False)

    @property
    def out_of_distribution(self) -> bool:
        """Whether the prompt is unlike the training data; its familiarity then counts as 0."""
        return bool(self.unfamiliar)

    @property
    def thinking_helps(self) -> bool:
        """Whether reasoning at length before the answer is expected to be worth anything."""
        return self.thinking_gain > WORTH_THINKING

    def as_dict(self) -> dict[str, Any]:
        """The score as JSON-ready values, rounded to what is meaningful."""
        return {
            "difficulty": round(self.difficulty, 4),
            "rank": round(self.rank, 4),
            "quality": {
                tier: {"p": round(each.p, 4), "low": round(each.low, 4), "high": round(each.high, 4)}
                for tier, each in self.quality.items()
            },
            "expected_output_tokens": {tier: round(n, 1) for tier, n in self.expected_output_tokens.items()},
            "thinking_gain": round(self.thinking_gain, 4),
            "thinking_helps": self.thinking_helps,
            "expected_reasoning_tokens": round(self.expected_reasoning_tokens, 1),
            "artifact": self.artifact,
            "familiarity": round(self.familiarity, 4),
            "out_of_distribution": self.out_of_distribution,
            "unfamiliar": list(self.unfamiliar),
        }


class Router:
    """A loaded artifact, ready to score; immutable and safe to share between threads."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._weights = weights = artifact.weights
        self._seen = np.unpackbits(weights.seen, bitorder="little").astype(bool)
        self._landmarks = Landmarks.of(weights)
        # The curves as lines by piece: (logit at the piece's knot, slope) by tier. Plain floats beat arrays of three.
        self._knots: list[float] = weights.knots.tolist()
        self._starts = [self._knots[0], *self._knots]
        at_knots = ramps(np.array(self._starts), weights.knots) @ weights.slope.T + weights.offset
        self._lines: list[list[list[float]]] = np.stack((at_knots, weights.slope.T), axis=-1).tolist()
        self._shrink: list[float] = weights.shrink.tolist()
        self._token_offset: list[float] = weights.token_offset.tolist()
        self._thinking: list[float] = weights.thinking.tolist()
        self._half: list[list[float]] = weights.half_width.T.tolist()
        self._token_factor: list[float] = weights.token_factor.tolist()
        self._signal_weights: list[float] = weights.familiarity.tolist()
        self._limits: list[float] = weights.limits.tolist()
        self._shown: list[float] = weights.shown.tolist()

    @classmethod
    def load(cls, path: Path | None = None, table: Embedder | None = None) -> Router:
        """Load the artifact at `path`, or the bundled one, with `table` or the bundled embedder. Raises an ArtifactError."""
        return cls(load(path, table))

    @property
    def version(self) -> str:
        """Version of the artifact, as it appears in every score."""
        return self._artifact.version

    @property
    def card(self) -> dict[str, Any]:
        """What the training wrote down about the artifact."""
        return dict(self._artifact.card)

    @property
    def artifact(self) -> Artifact:
        """The artifact behind this router, for `abilities` and for training on top of it."""
        return self._artifact

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
        return self.score_features(extract(request, self._artifact.embedder), images=bool(request.images))

    def score_features(self, features: Features, *, images: bool = False) -> Score:
        """Score a request by its features; `images` says whether it came with any."""
        placed = self.place(features)
        unseen = self.unseen_share(features)
        known = self._familiarity(placed.near, unseen)
        unfamiliar = self._unfamiliar(images, features, unseen, known)
        return self._assemble(placed.heads, 0.0 if unfamiliar else known * features.likeness, unfamiliar, features)

    def explain(self, request: RequestText) -> Explanation:
        """What makes the request easier or harder than the training prompts are; see router_models.explain."""
        features = extract(request, self._artifact.embedder)
        return explanation(self._artifact, features, self.place(features), self.place)

    def ability(self, model: str) -> Ability | None:
        """What the training learnt of one recorded model, by its name on the card; None for one that was not recorded."""
        if model not in self._artifact.models:
            return None
        vector = self._weights.abilities[self._artifact.models.index(model)]
        none = np.zeros_like(self._weights.prior_spread)
        basis = f"what was recorded of {model}"
        return Ability(model, vector, none, self._shown[2], mean_widths(self._weights), basis)

    def place(self, features: Features) -> Placed:
        """Where the prompt lies among the landmarks, and what the heads make of it."""
        return self._landmarks.place(features)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Per word of the vocabulary (V,): whether it was met in training."""
        return self._seen

    def unseen_share(self, features: Features) -> float:
        """Share of the text's distinct words that never occurred in training, 0..1; 0 for a text without words."""
        if not features.named:
            return 0.0
        return 1.0 - int(np.count_nonzero(self._seen.take(features.whole))) / features.named

    def _familiarity(self, near: Floats, unseen: float) -> float:
        best, square, mean, unseen = signals_of(near, unseen)
        by_best, by_square, by_mean, by_unseen, constant = self._signal_weights
        logit = by_best * best + by_square * square + by_mean * mean + by_unseen * unseen + constant
        return 1.0 / (1.0 + exp(-max(min(logit, 50.0), -50.0)))

    def _unfamiliar(
        self, images: bool, features: Features, unseen: float, familiarity: float
    ) -> tuple[Unfamiliar, ...]:
        unseen_limit, familiarity_limit = self._limits
        reasons: list[Unfamiliar] = []
        if not features.words:
            reasons.append("no_text")
        if images:
            reasons.append("images")
        if features.other_script > MOST_OTHER_SCRIPT:
            reasons.append("other_script")
        if unseen > unseen_limit and round(unseen * features.named) >= UNSEEN_TO_JUDGE:
            reasons.append("unseen_words")
        if familiarity < familiarity_limit and not 0 < features.named < WORDS_TO_RESEMBLE:
            reasons.append("unlike_training")
        return tuple(reasons)

    def _assemble(
        self, heads: list[float], familiarity: float, unfamiliar: tuple[Unfamiliar, ...], features: Features
    ) -> Score:
        ease, among_its_kind, *rest = heads
        away = 1.0 - familiarity
        keep, shift = self._shrink
        drawn = (keep + familiarity * (1.0 - keep)) * ease + away * shift
        piece = bisect_right(self._knots, drawn)
        beyond = drawn - self._starts[piece]
        own, shared = familiarity**OWN_POWER, away * rest[LENGTH]
        p = low = high = 0.0
        quality: dict[Tier, Interval] = {}
        tokens: dict[Tier, float] = {}
        for column, tier in enumerate(TIERS):
            start, slope = self._lines[piece][column]
            wide, narrow = self._half[column]
            logit = start + slope * beyond + own * rest[OWN_LEVEL + column]
            half = wide + familiarity * (narrow - wide)
            # A stronger tier is never predicted to be worse: where the curves cross, one of them lacks data.
            p = max(p, probability(logit))
            low = max(low, probability(logit - half))
            high = max(high, probability(logit + half))
            quality[tier] = Interval(p, low, high)
            length = familiarity * rest[column] + shared + away * self._token_offset[column]
            tokens[tier] = _tokens(length, self._token_factor[column])
        mean, certain, factor = self._thinking
        thinking = mean + (certain + familiarity * (1.0 - certain)) * (rest[THINKING] - mean)
        middle, spread, _ = self._shown
        shown = (1.0, ease, (log(max(tokens["economy"], 1.0)) - middle) / spread)
        difficulty = 1.0 - quality["economy"].p
        version = self._artifact.version
        return Score(
            difficulty, quality, tokens, version, familiarity, unfamiliar, ease, -among_its_kind, shown,
            max(min(thinking, 1.0), -1.0), _tokens(rest[REASONING], factor), features,
        )  # fmt: skip


def _tokens(log_tokens: float, factor: float) -> float:
    return min(max(exp(min(log_tokens, 12.0)) * factor, TOKEN_BOUNDS[0]), TOKEN_BOUNDS[1])


__all__ = ["Contribution", "Explanation", "Interval", "Placed", "Router", "Score", "Unfamiliar"]
