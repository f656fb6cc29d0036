"""Puts together what the decision needs of one request: what is asked, what policy and key say, and what is known now."""

from __future__ import annotations

from typing import Any

from gateway.billing.budgets import budget_claims
from gateway.callers import Caller, Terms
from gateway.chat.question import Question
from gateway.chat.request import Options
from gateway.config_policies import Policy
from gateway.routing.ask import Ask
from gateway.routing.conditions import tiers_left
from gateway.routing.knowledge import Knowledge
from gateway.routing.purse import saving
from gateway.types import UNPRICED_SHEET


def ask_for(question: Question, worst_costs: tuple[int, ...], known: Knowledge) -> Ask:
    """What the request, its key, its policy and the moment ask of a model; `worst_costs` are those of the models asked for."""
    request, caller, asked, facts = question.request, question.caller, question.asked, question.facts
    score, costs, policy = question.score, question.prices.costs, question.policy
    terms = terms_for(request.options, caller, policy, question.terms)
    wanted = terms.min_quality or 0.0
    spread = int(request.request_id[-8:], 16)
    live: dict[str, Any] = {}
    if asked.auto:
        if policy.floor == "average":
            names, tiers = asked.allowed_models, caller.tiers
            if asked.tier is not None or names is not None or terms.local_only or terms.regions is not None:
                tiers = tiers_left(asked.models, asked.tier, tiers, names, terms.local_only, terms.regions)
            if policy.save_below is not None:
                live["saving"] = saving(known.purses.left(_counters(question)), policy.save_below)
            live["worth"] = known.promises.worth(score.artifact, policy.confidence, wanted, tiers)
        window = policy.premium_window_seconds
        live["premium_spent"] = known.shares.spent(caller.key_id, terms.max_premium_share, window)
        if score.out_of_distribution:
            share = policy.max_unfamiliar_share
            live["unfamiliar_spent"] = known.unfamiliar.spent(caller.key_id, share, window)
    return Ask(
        models=asked.models,
        prices=costs if policy.unpriced == "refuse" else tuple(cost or UNPRICED_SHEET for cost in costs),
        service_tier=facts.service_tier,
        auto=asked.auto,
        mode=asked.mode,
        tier=asked.tier,
        allowed_tiers=caller.tiers,
        allowed_models=asked.allowed_models,
        needs=facts.needs,
        input_tokens=facts.input_likely,
        input_tokens_least=facts.input_least,
        output_tokens=facts.output_tokens,
        choices=request.body.get("n") or 1,
        worst_costs=worst_costs,
        min_quality=wanted,
        objective=policy.objective,
        max_cost=terms.max_cost,
        fallbacks=policy.fallbacks,
        spread=spread,
        unfamiliar=policy.unfamiliar,
        local_only=terms.local_only,
        regions=terms.regions,
        sla=policy.sla,
        states=known.health.states(),
        now=known.health.now(),
        cached=known.affinity.cached(caller.tenant, question.conversation, elsewhere=spread >> 29 == 0),
        abilities=known.abilities(score.artifact),
        **live,
    )


def _counters(question: Question) -> list[str]:
    """Of the hard budgets that the request answers to, whatever model is asked."""
    hard = [budget for budget in question.ladder.budgets if budget.hard]
    return [claim.counter for claim in budget_claims(hard, 0, question.request.received_at)]


def terms_for(options: Options, caller: Caller, policy: Policy, of_policy: Terms) -> Terms:
    """Policy, tenant, key and request together. The request may ask for less `min_quality` than the policy, never for less
    than its key and tenant; everything else can only become tighter.
    """
    asked = options.min_quality if options.min_quality is not None else policy.min_quality
    request = Terms(
        min_quality=asked, max_cost=options.max_cost, local_only=options.local_only, regions=options.regions
    )
    return request.and_(caller.terms).and_(of_policy)


def own_terms(options: Options, caller: Caller) -> Terms:
    """What the request and its key demand whatever the policy, without the quality that the request itself asks for."""
    request = Terms(max_cost=options.max_cost, local_only=options.local_only, regions=options.regions)
    return request.and_(caller.terms)
