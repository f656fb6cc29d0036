"""What the decision needs to know, as plain values, so that deciding is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gateway.catalog import Model
from gateway.types import Mode, PriceSheet


class Interval(Protocol):
    """A probability with its bounds."""

    @property
    def p(self) -> float:
        """The estimate."""
        ...

    @property
    def low(self) -> float:
        """Where it may well lie at the least."""
        ...

    @property
    def high(self) -> float:
        """Where it may well lie at the most."""
        ...


class Score(Protocol):
    """What the trained model says about a prompt; see router_models.router.Score."""

    @property
    def difficulty(self) -> float:
        """Probability that the economy answer is not good enough."""
        ...

    @property
    def quality(self) -> Mapping[Any, Interval]:
        """Per tier: probability of a good answer."""
        ...

    @property
    def expected_output_tokens(self) -> Mapping[Any, float]:
        """Per tier: how long the answer will be."""
        ...

    @property
    def artifact(self) -> str:
        """Version of the trained artifact."""
        ...

    @property
    def rank(self) -> float:
        """How hard the prompt is among its like."""
        ...

    @property
    def familiarity(self) -> float:
        """How much the prompt is like the training data, 0..1."""
        ...

    @property
    def unfamiliar(self) -> tuple[str, ...]:
        """Why the prompt is unlike the training data; empty when it is not."""
        ...

    @property
    def features(self) -> Any:
        """What the prompt was scored by; see router_models.features."""
        ...


class Scorer(Protocol):
    """A router model; see router_models.router.Router."""

    def score_messages(
        self, messages: list[dict[str, Any]], *, tools: bool = False, json_schema: bool = False
    ) -> Score:
        """Score one conversation."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One request's conditions. `models` are the deployments its name stands for."""

    models: tuple[Model, ...]
    prices: Sequence[PriceSheet | None]
    """What the providers ask, by the models' index; None for a model that has no price now."""
    service_tier: str | None
    """The provider's service tier that the request asks for."""
    auto: bool
    mode: Mode
    tier: str | None
    allowed_tiers: frozenset[str] | None
    allowed_models: frozenset[str] | None
    """Model names; None when the key may use all."""
    needs: frozenset[str]
    input_tokens: int
    """A likely count, for prices."""
    input_tokens_least: int
    """Certainly at least this many: what a context window is checked with."""
    output_tokens: int
    """The most the request allows per choice; 0 when it names no limit."""
    choices: int
    worst_costs: tuple[int, ...]
    """Per model: the most the caller can be charged (pico-USD), which is also what would be held."""
    min_quality: float
    objective: Literal["cost", "quality"]
    max_cost: int | None
    fallbacks: bool
    spread: int
    """Any number; spreads requests over a load-balanced group."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment that may answer, in the order of preference. Costs in pico-USD: at the provider, and to the caller."""

    model: Model
    quality: float | None
    expected_cost: int
    worst_cost: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A deployment that may not answer, and why, in one phrase."""

    model: str
    tier: str
    reason: str
    qualified: bool = False
    """It met every hard condition and was only not worth it, or not good enough."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is asked, in order; `reason` is what the response header says."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    reason: str
    floor: float | None
    score: Score | None
    spare: tuple[Candidate, ...] = ()
    """Met every hard condition and were not chosen: who may answer when the budget does not allow the others."""
    worth: float | None = None
    """Pico-USD that a unit of quality was worth, where that was weighed."""
    too_dear: str | None = None
    """The model that was chosen and that the budget did not allow."""
