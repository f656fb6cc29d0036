"""What is remembered of a decision: all that making it again needs, as far as the policy lets it (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from gateway.callers import NO_TERMS, Terms
from gateway.routed import RoutingRecord
from gateway.routing.ask import Ask, Decision
from gateway.types import TIERS, Tier

SCORED: tuple[Tier, ...] = TIERS[:3]
"""The tiers that the router model knows."""
TOKEN_BYTES = 4
"""`input_tokens_least` is this much less than `input_tokens` for a prompt of text."""

Remember = Literal["nothing", "scores", "features", "prompts"]


class Packer(Protocol):
    """Packs a prompt's features; see router_models.kept."""

    @property
    def fingerprint(self) -> str:
        """Names the features; what was kept under another one cannot be compared."""
        ...

    def pack(self, features: Any) -> bytes:
        """The features in few bytes."""
        ...

    def text(self, messages: Sequence[Any]) -> str:
        """The part of a conversation that the router reads."""
        ...


def remember(
    ask: Ask,
    decision: Decision,
    *,
    how: Remember,
    policy: str,
    min_quality: float | None,
    terms: Terms,
    sizes: Mapping[str, int],
    messages: Sequence[Any],
    packer: Packer,
) -> RoutingRecord | None:
    """The record of a decision with candidates; None when nothing is to be remembered or nothing was scored.

    `min_quality` is what the request itself asked for, `terms` what it and its key demand whatever the policy; `sizes` is what
    `worst_costs` follow from, where a cost cap compares them.
    """
    score = decision.score
    if how == "nothing" or score is None:
        return None
    quality, tokens = score.quality, score.expected_output_tokens
    first = decision.candidates[0].model
    keeps = how != "scores"
    return RoutingRecord(
        policy,
        ask.mode if ask.auto else None,
        ask.objective,
        min_quality,
        packer.fingerprint if keeps else None,
        packer.pack(score.features) if keeps else None,
        round(score.rank, 4),
        round(score.familiarity, 4),
        score.unfamiliar,
        # Probabilities are kept to the last bit, because a decision made again compares them; their bounds only inform.
        tuple([(each.p, round(each.low, 4), round(each.high, 4)) for each in map(quality.__getitem__, SCORED)]),
        tuple([round(tokens[tier]) for tier in SCORED]),
        ask.input_tokens,
        ask.output_tokens,
        first.name,
        first.tier,
        decision.worth,
        demands_of(ask, terms, sizes),
        packer.text(messages) if how == "prompts" else None,
        score.representation if ask.abilities else None,
        round(score.expected_reasoning_tokens),
    )


def demands_of(ask: Ask, terms: Terms, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What a request and its key demanded beyond the ordinary; empty for most requests."""
    demands: dict[str, Any] = {}
    if ask.needs:
        demands["needs"] = sorted(ask.needs)
    if ask.tier is not None:
        demands["tier"] = ask.tier
    if ask.allowed_tiers is not None:
        demands["tiers"] = sorted(ask.allowed_tiers)
    if ask.allowed_models is not None:
        demands["models"] = sorted(ask.allowed_models)
    if ask.service_tier is not None:
        demands["service_tier"] = ask.service_tier
    if ask.choices != 1:
        demands["choices"] = ask.choices
    if ask.input_tokens // TOKEN_BYTES != ask.input_tokens_least:
        demands["least"] = ask.input_tokens_least
    if terms != NO_TERMS:
        given = {"min_quality": terms.min_quality, "max_cost": terms.max_cost, "local_only": terms.local_only or None}
        demands |= {name: value for name, value in given.items() if value is not None}
        if terms.regions is not None:
            demands["regions"] = sorted(terms.regions)
    if sizes:
        demands["sizes"] = dict(sizes)
    return demands
