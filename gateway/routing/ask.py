"""What the decision needs to know, as plain values, so that deciding is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, Protocol

from gateway.catalog import Model
from gateway.config_policies import Objective, Sla
from gateway.types import Mode, PriceSheet
from gateway.value import value

TOKENS_PER_SECOND = 50
"""How fast a deployment is expected to write one answer until its speed is known."""
READS_PER_WRITE = 50
"""A deployment is expected to read so many tokens in the time in which it writes one, until it is measured. On a CPU the
bundled engine reads 7 to 77, by how its matrices are kept (prefill_512 by decode_1 in benchmarks/results/engine_cpu.json)."""


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
    def expected_reasoning_tokens(self) -> float:
        """How long a model that reasons before it answers will do so."""
        ...

    @property
    def thinking_gain(self) -> float:
        """How much more probable that makes a good answer, -1..1."""
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
    def representation(self) -> tuple[float, ...]:
        """What single models are judged by."""
        ...

    @property
    def features(self) -> Any:
        """What the prompt was scored by; see router_models.features."""
        ...

    @property
    def out_of_distribution(self) -> bool:
        """Whether the prompt is unlike what the model was trained on."""
        ...

    @property
    def unfamiliar(self) -> tuple[str, ...]:
        """In what it is unlike that."""
        ...


class Scorer(Protocol):
    """A router model; see router_models.router.Router."""

    def score_messages(
        self, messages: list[dict[str, Any]], *, tools: bool = False, json_schema: bool = False
    ) -> Score:
        """Score one conversation."""
        ...


class Ability(Protocol):
    """What is known of one model beside its tier; see router_models.abilities.Ability."""

    @property
    def basis(self) -> str:
        """What it is known by, in words."""
        ...

    def quality(self, score: Any) -> Interval:
        """Probability that this model answers the scored prompt well."""
        ...


class PromiseTable(Protocol):
    """What a unit of quality must be worth so that a share of the best quality is kept; see router_models.floor."""

    def worth_for(self, floor: float) -> float:
        """Pico-USD per unit of quality; infinite where only the best keeps the promise."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """How a deployment has done lately; see health. Seconds are None while nothing is known."""

    first_token: float | None = None
    per_token: float | None = None
    error_rate: float = 0.0
    failing: bool = False
    probe_at: float = 0.0
    """When a failing one may be tried again (clock of Ask.now)."""
    retry_at: float = inf
    """When one that is too slow may be tried again; never, where nobody measures."""

    read: float | None = None
    """Input tokens that were read before `first_token`, on average; None where it counts for every prompt."""
    reading: float | None = None
    """Seconds that each token less than that saves; None while it is not known."""
    reading_more: float = 0.0
    """Seconds that each token beyond takes: what is measured and nothing else, so that nobody is late by assumption."""

    def first(self, input_tokens: int, cached: int) -> float | None:
        """Seconds until the first token of an answer to so many tokens, of which so many need not be read."""
        if self.first_token is None:
            return None
        reading = self.reading if self.reading is not None else seconds_to_read(self.per_token)
        more = input_tokens - cached - self.read if self.read is not None else -cached
        return max(self.first_token + more * (self.reading_more if more > 0 else reading), 0.0)

    def seconds(self, output_tokens: float, input_tokens: int = 0, cached: int = 0) -> float | None:
        """How long a whole answer of so many tokens is expected to take."""
        written = (self.per_token or 0.0) * output_tokens
        first = self.first(input_tokens, cached)
        if first is not None:
            return first + written
        return written * share_unread(output_tokens, input_tokens, cached) if self.per_token is not None else None


def seconds_to_read(per_token: float | None) -> float:
    """How long reading an input token is assumed to take, by the seconds of writing one."""
    return (per_token or 1.0 / TOKENS_PER_SECOND) / READS_PER_WRITE


def share_unread(output_tokens: float, input_tokens: int, cached: int) -> float:
    """Which share of the work of an answer is left when so many input tokens need not be read, 0..1."""
    whole = output_tokens + input_tokens / READS_PER_WRITE
    return 1.0 - min(cached, input_tokens) / READS_PER_WRITE / whole if cached else 1.0


UNKNOWN = State()


@value
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
    """Share of the best quality that is to be kept; see `worth`."""
    objective: Objective
    max_cost: int | None
    fallbacks: bool
    spread: int
    """Any number; spreads requests over a load-balanced group."""
    worth: float | None = None
    """Pico-USD per unit of quality in a request of 1,000 tokens: keeps `min_quality` on average. None: each prompt keeps it."""
    saving: float = 1.0
    """The share of `worth` or `min_quality` that counts, as little is left of a budget; see purse."""
    unfamiliar: Literal["best", "choose"] = "best"
    """What becomes of prompts unlike the training data."""
    unfamiliar_spent: bool = False
    """Whether the key's share of prompts that go to the best for that is used up."""
    local_only: bool = False
    regions: frozenset[str] | None = None
    """Where the request may be processed; None for everywhere."""
    sla: Sla | None = None
    premium_spent: bool = False
    """Whether the key's share of answers by the upper tiers is used up."""
    states: Sequence[State] = ()
    """How deployments have done lately, by the models' index; empty when nothing is known."""
    now: float = 0.0
    """The moment (monotonic, seconds) that `states` are looked at."""
    cached: Mapping[int, int] = field(default_factory=dict)
    """Input tokens that a deployment probably has in its prompt cache, by the models' index."""
    abilities: Mapping[int, Ability] = field(default_factory=dict)
    """Models that are judged by themselves and not by their tier, by their index."""


@value
class Candidate:
    """A deployment that may answer, in the order of preference. Costs in pico-USD: at the provider, and to the caller."""

    model: Model
    quality: float | None
    expected_cost: int
    worst_cost: int
    interval: Interval | None = None
    seconds: float | None = None
    """How long the whole answer is expected to take; None while nothing is known."""
    first_token: float | None = None
    cached: int = 0
    """Input tokens that are expected to be read from its prompt cache."""
    burden: int = 0
    """How much speaks against it though it may answer; see `behind`. Those with less come first."""
    behind: str | None = None
    """Why it was put behind others, if it was."""
    retried: bool = False
    """It was too slow when it was last measured, and this request may find out whether it still is."""
    reasoning_tokens: int = 0
    """How many it is expected to think before its answer, for each of the choices."""
    basis: str | None = None
    """What its quality is known by where that is not its tier's."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A deployment that may not answer, and why, in one phrase."""

    model: str
    tier: str
    reason: str
    qualified: bool = False
    """It met every hard condition and was only not worth it, or not good enough."""


@value
class Decision:
    """Who is asked, in order; `reason` is what the response header says.

    `floor` is the least predicted quality, where one is kept for each prompt; `worth` what a unit of quality was worth in
    this request.
    """

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    reason: str
    floor: float | None
    score: Score | None
    spare: tuple[Candidate, ...] = ()
    """Met every hard condition and were not chosen: who may answer when the budget does not allow the others."""
    too_dear: str | None = None
    """The model that was chosen and that the budget did not allow."""
    worth: float | None = None
    unfamiliar: bool = False
    """The best was chosen because the prompt is unlike the training data."""
