"""What past requests would become under another policy, artifact, price list or set of models: the sentence, for the past.

It puts the same conditions together as `route.ask_for` does for a request of now, from what was remembered. What only the
moment knew is not there: budgets, failing deployments, prompt caches, the share of premium answers so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson

from gateway.billing.prices.book import Prices
from gateway.callers import Terms
from gateway.catalog import Catalog, Model
from gateway.catalog_owners import terms_of
from gateway.config_policies import Policy
from gateway.limits.estimate import PromptSize, worst_case
from gateway.money import PICO_PER_USD
from gateway.routing.ask import Ask, State
from gateway.routing.conditions import tiers_left
from gateway.routing.decide_many import Many
from gateway.routing.knowledge import AbilitiesOf
from gateway.routing.past.columns import Past, Scores
from gateway.routing.promises import Promises
from gateway.routing.remember import TOKEN_BYTES
from gateway.routing.replay import Again, Group, scores_of
from gateway.types import TIERS, UNPRICED_SHEET

TOGETHER = 8
"""Requests of a kind below which deciding them one by one is as quick."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Under what past requests are decided again. `policy` takes the place of each request's own."""

    catalog: Catalog
    policies: Mapping[str, Policy]
    prices: Prices
    promises: Promises
    abilities: AbilitiesOf
    policy: Policy | None = None
    min_quality: float | None = None

    def policy_of(self, name: str) -> Policy:
        """The policy that counts for requests of the policy `name`; one that is gone is replaced by the default one."""
        policy = self.policy or self.policies.get(name) or self.policies["default"]
        return policy if self.min_quality is None else policy.model_copy(update={"min_quality": self.min_quality})


@dataclass(frozen=True, slots=True)
class _Plain:
    """What requests of one kind have in common: the fixed part of their Ask, and what the rest follows from."""

    fixed: dict[str, Any]
    terms: Terms
    policy: Policy
    demands: dict[str, Any]


class Asks:
    """The conditions of past requests. Most of them are of the same few kinds, so each kind is understood once."""

    def __init__(self, past: Past, situation: Situation, states: tuple[State, ...]) -> None:
        self._past = past
        self._situation = situation
        self._states = states
        self._kinds: dict[tuple[Any, ...], _Plain | None] = {}
        self.worths: dict[tuple[Any, ...], float | None] = {}
        """What a unit of quality was worth, by artifact, confidence, floor, tier and allowed tiers."""
        self.gone: dict[str, int] = {}
        """Names that requests asked for and that are not configured, and how many did."""
        self.strict: set[str] = set()
        """Artifacts without a table of promises: their prompts keep the floor one by one."""

    def __call__(self, place: int, score: Again) -> Ask | None:
        """The conditions of one request; None when what it asked for is not configured."""
        past = self._past
        mode, requested = past.mode[place], past.requested[place]
        kind = (past.policy[place], mode, requested, past.needs[place], past.min_quality[place])
        if kind not in self._kinds:
            self._kinds[kind] = self._understood(*kind)
        plain = self._kinds[kind]
        if plain is None:
            self.gone[requested] = self.gone.get(requested, 0) + 1
            return None
        tokens = past.input_tokens[place]
        return Ask(
            **plain.fixed,
            input_tokens=tokens,
            input_tokens_least=plain.demands.get("least", tokens // TOKEN_BYTES),
            output_tokens=past.output_limit[place],
            worst_costs=self._worst(place, plain),
            spread=int(past.ids[place][-8:], 16),
            abilities=self._situation.abilities(score.artifact),
            worth=self._worth(score.artifact, plain) if plain.fixed["auto"] else None,
        )

    def groups(self, scores: Scores) -> Iterator[Group]:
        """The requests by kind and artifact, for what can be decided together; each with the conditions of its first one."""
        past = self._past
        kinds = zip(
            past.policy, past.mode, past.requested, past.needs, past.min_quality, scores.artifact, strict=True
        )  # fmt: skip
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, kind in enumerate(kinds):
            places.setdefault(kind, []).append(place)
        score_at = scores_of(scores)
        tokens, limits = np.array(past.input_tokens, dtype=np.int64), np.array(past.output_limit, dtype=np.int64)
        strange = np.array([bool(reasons) for reasons in scores.unfamiliar], dtype=bool)
        for kind, found in places.items():
            if len(found) < TOGETHER or kind[1] is None:
                continue
            ask = self(found[0], score_at(found[0]))
            plain = self._kinds[kind[:-1]]
            if ask is None or plain is None:
                continue
            rows = np.array(found)
            least = tokens[rows] // TOKEN_BYTES
            if "least" in plain.demands:
                least = np.full(rows.size, plain.demands["least"])
            many = Many(
                tokens[rows],
                least,
                limits[rows],
                scores.quality[rows],
                scores.low[rows],
                scores.high[rows],
                scores.tokens[rows],
                strange[rows],
                scores.reasoning[rows],
            )
            yield Group(ask, rows, many)

    def _understood(
        self, policy_name: str, mode: str | None, requested: str, needs: str, min_quality: float | None
    ) -> _Plain | None:
        situation, demands = self._situation, cast(dict[str, Any], orjson.loads(needs))
        models = _models(situation.catalog, mode, requested)
        if not models:
            return None
        policy = situation.policy_of(policy_name)
        asked = Terms(min_quality=min_quality if min_quality is not None else policy.min_quality)
        terms = asked.and_(_own_terms(demands)).and_(terms_of(policy))
        costs = situation.prices.costs
        fixed = {
            "models": models,
            "prices": costs if policy.unpriced == "refuse" else tuple(cost or UNPRICED_SHEET for cost in costs),
            "service_tier": demands.get("service_tier"),
            "auto": mode is not None,
            "mode": mode or "standard",
            "tier": demands.get("tier"),
            "allowed_tiers": _set(demands.get("tiers")),
            "allowed_models": _set(demands.get("models")),
            "needs": frozenset(demands.get("needs", ())),
            "choices": demands.get("choices", 1),
            "min_quality": terms.min_quality or 0.0,
            "objective": policy.objective,
            "unfamiliar_spent": policy.max_unfamiliar_share <= 0.0,
            "max_cost": terms.max_cost,
            "fallbacks": policy.fallbacks,
            "unfamiliar": policy.unfamiliar,
            "local_only": terms.local_only,
            "regions": terms.regions,
            "sla": policy.sla,
            "states": self._states,
        }
        return _Plain(fixed, terms, policy, demands)

    def _worth(self, artifact: str, plain: _Plain) -> float | None:
        if plain.policy.floor != "average":
            return None
        fixed, promises = plain.fixed, self._situation.promises
        scope = (fixed["models"], fixed["tier"], fixed["allowed_tiers"], fixed["allowed_models"])
        tiers = tiers_left(*scope, fixed["local_only"], fixed["regions"])
        key = (artifact, plain.policy.confidence, fixed["min_quality"], tiers)
        if key not in self.worths:
            if promises.worth(*key) is None:
                promises.renew()
            self.worths[key] = promises.worth(*key)
        worth = self.worths[key]
        if worth is None:
            self.strict.add(artifact)
        return worth

    def _worst(self, place: int, plain: _Plain) -> tuple[int, ...]:
        """The most a call to each model can cost, where a cap compares that; what would be held for those without a price."""
        past, fixed, situation = self._past, plain.fixed, self._situation
        if fixed["max_cost"] is None:
            hold = int(plain.policy.unpriced_hold_usd * PICO_PER_USD)
            return tuple([hold if fixed["prices"][model.index] is UNPRICED_SHEET else 0 for model in fixed["models"]])
        sizes = plain.demands.get("sizes") or {"text": TOKEN_BYTES * (past.input_tokens[place] + 1)}
        prompt = PromptSize(sizes["text"], sizes.get("images", 0), sizes.get("audio", 0))
        body: dict[str, Any] = {"n": fixed["choices"], "max_tokens": past.output_limit[place] or None}
        if sizes.get("voice"):
            body["modalities"] = ["audio"]
        most = prompt.text + prompt.images + prompt.audio
        worst = []
        for model in fixed["models"]:
            price = situation.prices.charge(past.tenant[place], model).dearest(most, fixed["service_tier"])
            bound = worst_case(body, model, price, prompt, strict=bool(sizes.get("strict")))
            worst.append(bound.amount)
        return tuple(worst)


def _models(catalog: Catalog, mode: str | None, requested: str) -> tuple[Model, ...]:
    if mode is not None:
        return catalog.models
    return catalog.models_in(requested) if requested in TIERS else catalog.groups.get(requested, ())


def _own_terms(demands: Mapping[str, Any]) -> Terms:
    """What the request and its key demanded whatever the policy; see routing.remember."""
    return Terms(
        min_quality=demands.get("min_quality"),
        max_cost=demands.get("max_cost"),
        local_only=demands.get("local_only", False),
        regions=_set(demands.get("regions")),
    )


def _set(values: list[str] | None) -> frozenset[str] | None:
    return frozenset(values) if values is not None else None
