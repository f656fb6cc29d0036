"""Which deployments may answer at all, and what each of them is expected to do and cost (pure).

Hard conditions: scope, tier, capabilities, place, context, cost cap. Nothing that comes later can undo them.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.catalog import Model
from gateway.config_policies import Sla
from gateway.money import amount_for
from gateway.routing.ask import (
    READS_PER_WRITE,
    TOKENS_PER_SECOND,
    UNKNOWN,
    Ask,
    Candidate,
    Interval,
    Rejected,
    Score,
    State,
)
from gateway.types import UNPRICED_SHEET, PriceList, PriceSheet

DEFAULT_OUTPUT_TOKENS = 256
"""Expected answer length where no router model has an opinion."""
UPPER_TIERS = frozenset({"premium", "deep"})

FAILING, LATE, SPENT = 4, 2, 1
"""Burdens of a candidate, the heaviest first: one that fails serves nobody, one that is late still answers."""


def admit(ask: Ask, score: Score | None) -> tuple[list[Candidate], list[Rejected]]:
    """Who may answer, in the order of the configuration, and who may not with the reason."""
    possible: list[Candidate] = []
    rejected: list[Rejected] = []
    for model, worst_cost in zip(ask.models, ask.worst_costs, strict=True):
        sheet = ask.prices[model.index]
        if sheet is None:
            rejected.append(Rejected(model.name, model.tier, "it has no price in the price book"))
        elif (reason := _obstacle(model, worst_cost, ask)) is not None:
            rejected.append(Rejected(model.name, model.tier, reason))
        else:
            possible.append(_candidate(model, sheet, worst_cost, ask, score))
    return possible, rejected


def is_placed(model: Model, local_only: bool, regions: frozenset[str] | None) -> bool:
    """Whether a deployment stands where it must. One that may run in several regions must be allowed in all of them."""
    return (model.local or not local_only) and (regions is None or bool(model.regions and model.regions <= regions))


def tiers_left(
    models: Iterable[Model],
    tier: str | None,
    tiers: frozenset[str] | None,
    names: frozenset[str] | None,
    local_only: bool,
    regions: frozenset[str] | None,
) -> frozenset[str]:
    """The tiers among which a promise is kept: those of the models that scope and place leave."""
    return frozenset([
        model.tier
        for model in models
        if (tier is None or model.tier == tier)
        and (tiers is None or model.tier in tiers)
        and (names is None or model.name in names)
        and is_placed(model, local_only, regions)
    ])  # fmt: skip


def _obstacle(model: Model, worst_cost: int, ask: Ask) -> str | None:
    """Why this deployment must not answer; None when it may."""
    if ask.tier is not None and model.tier != ask.tier:
        return f"not in tier {ask.tier}"
    if ask.allowed_tiers is not None and model.tier not in ask.allowed_tiers:
        return f"the key may not use tier {model.tier}"
    if ask.allowed_models is not None and model.name not in ask.allowed_models:
        return "the key may not use this model"
    if ask.local_only and not model.local:
        return "it is not local"
    if ask.regions is not None and not is_placed(model, False, ask.regions):
        runs = f"it runs in {', '.join(sorted(model.regions))}" if model.regions else "where it runs is not configured"
        return f"{runs}, and only {', '.join(sorted(ask.regions)) or 'no region'} is allowed"
    if ask.needs and model.capabilities is not None and not ask.needs <= model.capabilities:
        return f"cannot do {', '.join(sorted(ask.needs - model.capabilities))}"
    if model.context is not None and ask.input_tokens_least > model.context:
        return f"the prompt of at least {ask.input_tokens_least} tokens exceeds its context of {model.context}"
    if ask.max_cost is not None and worst_cost > ask.max_cost:
        return "could cost more than max_cost_usd (a smaller max_tokens lowers that)"
    return None


def _candidate(model: Model, sheet: PriceSheet, worst_cost: int, ask: Ask, score: Score | None) -> Candidate:
    state = ask.states[model.index] if ask.states else UNKNOWN
    interval: Interval | None = None
    basis: str | None = None
    tokens: float = DEFAULT_OUTPUT_TOKENS
    limit, thought = ask.output_tokens or model.max_output, 0
    if score is not None:
        # The trained model knows three tiers; deep is at least as good as premium.
        tier = "premium" if model.tier == "deep" else model.tier
        tokens = score.expected_output_tokens[tier]
        ability = ask.abilities.get(model.index)
        if ability is None:
            interval = score.quality[tier]
        else:
            interval, basis = ability.quality(score), ability.basis
        if model.reasoning:
            # Thoughts come first, and the limit holds for both: what they use up the answer does not get.
            thought = min(round(score.expected_reasoning_tokens), limit)
    written = min(round(tokens), limit - thought)
    cached = min(ask.cached.get(model.index, 0), ask.input_tokens) if ask.cached else 0
    first_token = state.first(ask.input_tokens, cached)
    seconds = state.seconds(written + thought, ask.input_tokens, cached)
    # What has no price may cost all that is held for it.
    expected = worst_cost
    if sheet is not UNPRICED_SHEET:
        price = sheet.at(ask.input_tokens, ask.service_tier)
        expected = _price(price, ask.input_tokens, cached, written * ask.choices, thought * ask.choices, seconds)
    burden, behind, retried = 0, None, False
    if state.failing or ask.premium_spent or ask.sla is not None:
        burden, behind, retried = _burden(model, state, first_token, seconds, ask)
    return Candidate(
        model,
        interval.p if interval is not None else None,
        expected,
        worst_cost,
        interval,
        seconds,
        first_token,
        cached,
        burden,
        behind,
        retried,
        thought,
        basis,
    )


def _price(price: PriceList, input_tokens: int, cached: int, written: int, thought: int, seconds: float | None) -> int:
    rates = price.rates
    amount = amount_for(input_tokens - cached, rates["input"]) + amount_for(written, rates["output"])
    if thought:
        amount += amount_for(thought, rates["reasoning"])
    if cached:
        amount += amount_for(cached, rates["cache_read"])
    if rates["gpu_seconds"]:
        time = seconds
        if time is None:
            time = (written + thought + (input_tokens - cached) / READS_PER_WRITE) / TOKENS_PER_SECOND
        amount += amount_for(round(time * 1_000_000), rates["gpu_seconds"])
    return amount


def _burden(
    model: Model, state: State, first: float | None, seconds: float | None, ask: Ask
) -> tuple[int, str | None, bool]:
    """What speaks against a deployment that may answer, as a number to sort by and in words; and whether it would be late
    but is to be tried again.
    """
    burden, reasons, retried = 0, [], False
    if state.failing and ask.now < state.probe_at:
        burden += FAILING
        reasons.append(f"{state.error_rate:.0%} of its last calls failed")
    if ask.sla is not None and (late := _late(first, seconds, ask.sla)):
        retried = ask.now >= state.retry_at
        if not retried:
            burden += LATE
            reasons.append(late)
    if ask.premium_spent and ask.auto and model.tier in UPPER_TIERS:
        burden += SPENT
        reasons.append("the key's share of premium answers is used up")
    return burden, "; ".join(reasons) if reasons else None, retried


def _late(first: float | None, seconds: float | None, sla: Sla) -> str | None:
    most = sla.first_token_seconds
    if most is not None and first is not None and first > most:
        return f"its first token takes {_seconds(first)} s, and the policy allows {most:g} s"
    if sla.total_seconds is not None and seconds is not None and seconds > sla.total_seconds:
        return f"the answer would take {_seconds(seconds)} s, and the policy allows {sla.total_seconds:g} s"
    return None


def _seconds(value: float) -> str:
    """To a tenth, or as many digits as a shorter time needs."""
    return f"{value:.1f}" if value >= 1.0 else f"{value:.2g}"
