"""The words every room shares: usage in disjoint buckets, prices, attempts and the event one request leaves."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args

from gateway.energy import Energy, add_up
from gateway.routed import RoutingRecord

Tier = Literal["economy", "standard", "premium", "deep"]
TIERS: tuple[Tier, ...] = get_args(Tier)
"""Cheapest first; the order is the order of escalation."""

Meter = Literal[
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input",
    "output", "reasoning", "audio_output", "gpu_seconds",
]  # fmt: skip
METERS: tuple[Meter, ...] = get_args(Meter)
TEXT_METERS: tuple[Meter, ...] = ("input", "cache_read", "cache_write_5m", "cache_write_1h")

PARENTS: dict[Meter, tuple[Meter, ...]] = {
    "cache_read": ("input",),
    "cache_write_5m": ("input",),
    "cache_write_1h": ("cache_write_5m", "input"),
    "audio_input": ("input",),
    "image_input": ("input",),
    "reasoning": ("output",),
    "audio_output": ("output",),
}
"""What a meter without a price of its own costs: what the first of these costs that has one."""

Book = Literal["provider", "tenant"]
"""provider: what a provider asks (cost); tenant: what a tenant pays at a fixed price of its own (charge)."""
BOOKS: tuple[Book, ...] = get_args(Book)

ServiceTier = Literal["default", "batch", "flex", "priority"]
"""How fast a provider promises to serve; the reply says which one it was."""
SERVICE_TIERS: tuple[ServiceTier, ...] = get_args(ServiceTier)

Mode = Literal["quick", "standard", "deep"]
"""How much an `auto` request wants spent: the cheapest tier, what the question deserves, the best tier."""

Outcome = Literal["completed", "failed", "cut", "interrupted", "corrected"]
"""completed: a whole reply; failed: no reply; cut: the stream broke after its start; interrupted: the process died;
corrected: no request, but what an earlier one costs beyond what was booked for it.
"""

PROCESS_DIED = "process_died"
"""Error code of a usage row made from a hold alone, because the process never wrote more; it has no ledger transaction."""

HoldState = Literal["open", "settled", "released"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Disjoint token buckets of one attempt. Every token is in exactly one bucket, so amounts may be added.

    `input` is uncached text; `output` is visible text. `gpu_seconds` counts microseconds of engine time. `estimated` is
    set when the provider did not report (the stream broke before its usage frame).
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    gpu_seconds: int = 0
    estimated: bool = False

    @property
    def input_total(self) -> int:
        """All input tokens, as the provider's own total counts them."""
        return (
            self.input
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.audio_input
            + self.image_input
        )

    @property
    def output_total(self) -> int:
        """All output tokens: text, reasoning and audio."""
        return self.output + self.reasoning + self.audio_output

    def quantities(self) -> list[tuple[Meter, int]]:
        """The meters with something in them, in the order of METERS."""
        return [(meter, quantity) for meter in METERS if (quantity := getattr(self, meter))]


@dataclass(frozen=True, slots=True)
class PriceList:
    """What one model costs: a rate (pico-USD per million units) for every meter, and where it came from.

    `dearest_input` and `dearest_output` are the most that a token of text can cost, under whichever meter it is counted.
    """

    rates: dict[Meter, int]
    source: str
    dearest_input: int = field(init=False, compare=False, repr=False)
    dearest_output: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dearest_input", max(self.rates[meter] for meter in TEXT_METERS))
        object.__setattr__(self, "dearest_output", max(self.rates["output"], self.rates["reasoning"]))


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """Every price list of one model. Which one counts is known from the reply: the service tier that it was served in, and
    its input tokens, as a context tier reprices the whole request.

    `steps` has, per service tier, (least input tokens, list) in ascending order, the first from 0; `default` is always there.
    """

    steps: dict[str, tuple[tuple[int, PriceList], ...]]
    _dearest: dict[tuple[tuple[str, ...], int], PriceList] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def flat(cls, price: PriceList) -> PriceSheet:
        """One list for everything."""
        return cls({"default": ((0, price),)})

    @property
    def plain(self) -> PriceList:
        """The list of a short request in the default service tier."""
        return self.steps["default"][0][1]

    def at(self, input_tokens: int, service_tier: str | None = None) -> PriceList:
        """The list of a reply. A service tier without prices of its own costs what the default one costs."""
        steps = self.steps.get(service_tier or "default") or self.steps["default"]
        if len(steps) == 1:
            return steps[0][1]
        return next(price for least, price in reversed(steps) if input_tokens >= least)

    def dearest(self, most_input_tokens: int, requested_tier: str | None = None) -> PriceList:
        """The most that every meter can cost, for a hold: a reply may come in the tier asked for or in the default one.

        Who asks for none, or for `auto`, may be served in any.
        """
        if len(self.steps) == 1 and len(self.steps["default"]) == 1:
            return self.plain
        tiers = ("default", requested_tier) if requested_tier in self.steps else tuple(self.steps)
        lists = [price for tier in tiers for least, price in self.steps[tier] if least <= most_input_tokens]
        known = self._dearest.get((tiers, len(lists)))
        if known is None:
            known = PriceList({meter: max(price.rates[meter] for price in lists) for meter in METERS}, "dearest")
            self._dearest[tiers, len(lists)] = known
        return known


UNPRICED = "unpriced"
"""Where the rates come from while there are none. Such lines have rate zero and are replaced once there is a price."""
UNPRICED_SHEET = PriceSheet.flat(PriceList(dict.fromkeys(METERS, 0), UNPRICED))


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One meter of one attempt in money: quantity x rate = amount, rounded once."""

    meter: Meter
    quantity: int
    rate: int
    amount: int


@dataclass(frozen=True, slots=True)
class Rated:
    """A usage under a price list, named by `source`. `total` is the sum of the lines, nothing is rounded after them."""

    lines: tuple[RatedLine, ...]
    total: int
    source: str = ""

    def amount(self, meter: Meter) -> int:
        """Pico-USD of one meter, zero when there was none of it."""
        return sum(line.amount for line in self.lines if line.meter == meter)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one upstream. A failed attempt is kept too: it may have been billed."""

    number: int
    model: str
    provider: str
    upstream_model: str
    started_at: float
    seconds: float
    status: Literal["ok", "error", "cut"]
    error_code: str | None
    usage: Usage
    raw_usage: dict[str, Any] | None
    cost: Rated
    charge: Rated
    service_tier: str | None = None
    """What the reply said it was served in; it decides the price."""
    reserved: int = 0
    """Pico-USD that stay held because what the tenant pays for it is not known yet."""
    energy: Energy | None = None

    @property
    def owed(self) -> int:
        """What counts against budgets: the charge, or what is held in its place."""
        return self.charge.total + self.reserved


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside before an upstream is called, so that concurrent requests cannot spend it twice.

    Should the process die before it settles, the hold alone tells who asked for what.
    """

    request_id: str
    tenant: str
    key_id: str
    amount: int
    created_at: float
    expires_at: float
    key_name: str
    requested_model: str
    project: str | None = None
    end_user: str | None = None
    claims: tuple[tuple[str, int], ...] = ()
    """Counters that are rebuilt from SQL, and how much of each is taken. When the process is gone, a job gives money and tokens
    back; requests and steps were made."""


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """Everything one finished request leaves behind; written to the spool before the last byte of the reply leaves.

    Times are seconds since the epoch (UTC); `seconds_to_first_token` is None for plain replies. `cost` is what the
    providers ask (pico-USD), `charge` what the tenant pays.
    """

    request_id: str
    tenant: str
    key_id: str
    key_name: str
    session_id: str | None
    tags: tuple[str, ...]
    requested_model: str
    model: str | None
    provider: str | None
    tier: str | None
    difficulty: float | None
    artifact: str | None
    decision: str
    explanation: dict[str, Any]
    outcome: Outcome
    error_code: str | None
    streamed: bool
    disconnected: bool
    started_at: float
    finished_at: float
    seconds_to_first_token: float | None
    overhead_seconds: float
    hold: int
    attempts: tuple[Attempt, ...]
    project: str | None = None
    end_user: str | None = None
    """Whom the request says it is for: the OpenAI field `user` or `safety_identifier`."""
    routing: RoutingRecord | None = None
    """What is remembered of the decision; None when the policy says `remember: nothing`."""

    @property
    def cost(self) -> int:
        """What all attempts cost at their providers, pico-USD."""
        return sum(attempt.cost.total for attempt in self.attempts)

    @property
    def charge(self) -> int:
        """What the tenant pays for all attempts, pico-USD."""
        return sum(attempt.charge.total for attempt in self.attempts)

    @property
    def energy(self) -> Energy | None:
        """What all attempts took, as far as it is known."""
        return add_up(attempt.energy for attempt in self.attempts)

    @property
    def reserved(self) -> int:
        """What stays held until prices are known, pico-USD."""
        return sum(attempt.reserved for attempt in self.attempts)


@cache
def usage_fields() -> tuple[str, ...]:
    """The bucket names of Usage, for tables and exports."""
    return tuple(field.name for field in fields(Usage) if field.name != "estimated")
