"""Decides which deployments may answer and in which order (pure: no clock, no I/O, no chance).

Hard conditions come first (scope, tier, capabilities, context, cost cap); none of what follows can undo them. An `auto`
request then keeps a quality floor, `min_quality` times the best predicted quality among the remaining tiers, and takes
the cheapest candidate above it. What is above the floor but dearer stays behind it as fallback; what is below is rejected.
"""

from __future__ import annotations

import dataclasses

from gateway.catalog import Model
from gateway.money import amount_for
from gateway.routing.ask import Ask, Candidate, Decision, Rejected, Score
from gateway.types import TIERS, UNPRICED_SHEET, PriceList, PriceSheet

DEFAULT_OUTPUT_TOKENS = 256
"""Expected answer length where no router model has an opinion."""
TOKENS_PER_GPU_SECOND = 50
"""How fast an engine that is billed by time is expected to write one answer."""


def decide_route(ask: Ask, score: Score | None) -> Decision:
    """Order the candidates for one request. An empty `candidates` means that no deployment satisfies the conditions."""
    possible: list[Candidate] = []
    rejected: list[Rejected] = []
    for model, worst_cost in zip(ask.models, ask.worst_costs, strict=True):
        sheet = ask.prices[model.index]
        if sheet is None:
            rejected.append(Rejected(model.name, model.tier, "it has no price in the price book"))
            continue
        candidate = _candidate(model, sheet, worst_cost, ask, score)
        reason = _obstacle(model, candidate, ask)
        if reason is None:
            possible.append(candidate)
        else:
            rejected.append(Rejected(model.name, model.tier, reason))
    if not possible:
        return Decision((), tuple(rejected), "no candidate", None, score)
    if not ask.auto:
        ordered = _spread(possible, ask.spread)
        reason = f"asked for {'tier ' + ask.tier if ask.tier else ordered[0].model.name}"
        return Decision(_limited(ordered, ask), tuple(rejected), reason, None, score)
    return _decide_auto(possible, rejected, ask, score)


def _decide_auto(possible: list[Candidate], rejected: list[Rejected], ask: Ask, score: Score | None) -> Decision:
    best = max((candidate.quality or 0.0 for candidate in possible), default=0.0)
    if ask.mode == "quick":
        floor, reason = 0.0, "quick: cheapest"
    elif ask.mode == "deep" or ask.objective == "quality":
        top = max(TIERS.index(candidate.model.tier) for candidate in possible)
        kept = [candidate for candidate in possible if TIERS.index(candidate.model.tier) == top]
        below = [
            _below(candidate, f"{ask.mode} asks for the best tier") for candidate in possible if candidate not in kept
        ]
        why = "deep: best tier" if ask.mode == "deep" else "objective quality: best tier"
        chosen = _limited(_cheapest_first(kept, ask), ask)
        return Decision(chosen, (*rejected, *below), why, None, score, _others(possible, chosen))
    else:
        floor = ask.min_quality * best
        reason = ""
    kept = [candidate for candidate in possible if (candidate.quality or 0.0) >= floor]
    below = [
        _below(candidate, f"predicted quality {candidate.quality or 0.0:.2f} is below the floor {floor:.2f}")
        for candidate in possible
        if (candidate.quality or 0.0) < floor
    ]
    ordered = _cheapest_first(kept, ask)
    first = ordered[0]
    if not reason:
        reason = f"{first.model.tier}: quality {first.quality or 0.0:.2f} of best {best:.2f}, floor {floor:.2f}"
    chosen = _limited(ordered, ask)
    return Decision(chosen, (*rejected, *below), reason, floor, score, _others(possible, chosen))


def replace_dear(decision: Decision, too_dear: Candidate, instead: Candidate) -> Decision:
    """The same decision, saying that the budget did not allow the first choice."""
    reason = f"over budget: {instead.model.name} instead of {too_dear.model.name}"
    return dataclasses.replace(decision, reason=reason, too_dear=too_dear.model.name)


def _others(possible: list[Candidate], chosen: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    return tuple(candidate for candidate in possible if candidate not in chosen)


def _candidate(model: Model, sheet: PriceSheet, worst_cost: int, ask: Ask, score: Score | None) -> Candidate:
    # The trained model knows three tiers; deep is at least as good as premium.
    tier = "premium" if model.tier == "deep" else model.tier
    quality = score.quality[tier].p if score is not None else None
    expected = score.expected_output_tokens[tier] if score is not None else DEFAULT_OUTPUT_TOKENS
    most = ask.output_tokens or model.max_output
    likely = sheet.at(ask.input_tokens, ask.service_tier)
    return Candidate(
        model=model,
        quality=quality,
        # What has no price may cost all that is held for it.
        expected_cost=worst_cost
        if sheet is UNPRICED_SHEET
        else _price(likely, ask.input_tokens, min(round(expected), most) * ask.choices),
        worst_cost=worst_cost,
    )


def _price(price: PriceList, input_tokens: int, output_tokens: int) -> int:
    rates = price.rates
    engine_time = output_tokens * 1_000_000 // TOKENS_PER_GPU_SECOND if rates["gpu_seconds"] else 0
    return (
        amount_for(input_tokens, rates["input"])
        + amount_for(output_tokens, rates["output"])
        + amount_for(engine_time, rates["gpu_seconds"])
    )


def _obstacle(model: Model, candidate: Candidate, ask: Ask) -> str | None:
    """Why this deployment must not answer; None when it may."""
    if ask.tier is not None and model.tier != ask.tier:
        return f"not in tier {ask.tier}"
    if ask.allowed_tiers is not None and model.tier not in ask.allowed_tiers:
        return f"the key may not use tier {model.tier}"
    if ask.allowed_models is not None and model.name not in ask.allowed_models:
        return "the key may not use this model"
    missing = ask.needs - model.capabilities if model.capabilities is not None else frozenset[str]()
    if missing:
        return f"cannot do {', '.join(sorted(missing))}"
    if model.context is not None and ask.input_tokens_least > model.context:
        return f"the prompt of at least {ask.input_tokens_least} tokens exceeds its context of {model.context}"
    if ask.max_cost is not None and candidate.worst_cost > ask.max_cost:
        return "could cost more than max_cost_usd (a smaller max_tokens lowers that)"
    return None


def _below(candidate: Candidate, reason: str) -> Rejected:
    return Rejected(candidate.model.name, candidate.model.tier, reason, qualified=True)


def _cheapest_first(candidates: list[Candidate], ask: Ask) -> list[Candidate]:
    """By expected cost, then tier; those that are first together share the load."""

    def rank(candidate: Candidate) -> tuple[int, int]:
        return candidate.expected_cost, TIERS.index(candidate.model.tier)

    ordered = sorted(candidates, key=rank)
    together = [candidate for candidate in ordered if rank(candidate) == rank(ordered[0])]
    return _spread(together, ask.spread) + ordered[len(together) :]


def _spread(candidates: list[Candidate], spread: int) -> list[Candidate]:
    """Put one candidate first by weight, chosen by `spread`; the others keep their order."""
    if len(candidates) == 1:
        return candidates
    point = spread % sum(candidate.model.weight for candidate in candidates)
    for index, candidate in enumerate(candidates):
        point -= candidate.model.weight
        if point < 0:
            return [candidate, *candidates[:index], *candidates[index + 1 :]]
    raise AssertionError("weights are positive")


def _limited(candidates: list[Candidate], ask: Ask) -> tuple[Candidate, ...]:
    return tuple(candidates if ask.fallbacks else candidates[:1])
