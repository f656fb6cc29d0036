"""The tab of one request: money held, attempts noted, and one event written to the spool when it is closed.

Closing writes the spool before anything that can wait, so cancellation or a lost client cannot stop the metering.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.billing.cost import price_usage, rate_usage
from gateway.catalog import BUNDLED, Model
from gateway.chat.holding import Holding
from gateway.chat.learn import learn_answer
from gateway.chat.question import Question
from gateway.chat.route import own_terms
from gateway.chat.sampling import sampled
from gateway.errors import PenstockError, ProviderError, ProviderUnreachable
from gateway.limits.estimate import Estimate, choices_of, limit_to_send
from gateway.metering.energy import read_energy
from gateway.metering.normalise import estimate_usage, normalise
from gateway.metering.usage.tier import served_tier
from gateway.routed import RoutingRecord
from gateway.routing.ask import Ask, Candidate, Decision
from gateway.routing.explain import explain_decision
from gateway.routing.remember import remember
from gateway.services import Services
from gateway.types import UNPRICED, Attempt, Hold, Outcome, PriceSheet, Usage, UsageEvent

SELF_HOSTED = frozenset({"engine", BUNDLED})
HOLD_SECONDS_BEYOND = 60.0
"""A hold outlives the longest its calls may take by this much; afterwards it counts as orphaned."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """By the index of each model: the most a call to it can cost, and what is held for one (the same objects, usually)."""

    worst: Mapping[int, Estimate]
    held: Mapping[int, Estimate]

    def worst_costs(self, models: Iterable[Model]) -> tuple[int, ...]:
        """Pico-USD per model; 0 for one without a bound, which the decision rejects."""
        return tuple([self.worst[model.index].amount if model.index in self.worst else 0 for model in models])


class Tab:
    """One request's account, open from the hold until `close`."""

    def __init__(
        self,
        question: Question,
        bounds: Bounds,
        ask: Ask,
        decision: Decision,
        services: Services,
    ) -> None:
        request = self.request = question.request
        caller = self.caller = question.caller
        self.facts = question.facts
        self.decision = decision
        self._question = question
        self._ask = ask
        self.attempts: list[Attempt] = []
        self.disconnected = False
        self.heard = sampled(request, question.policy.shadow)
        self.first_byte: float | None = None
        self.upstream_seconds = 0.0
        self._prices = question.prices
        self._services = services
        self._bounds = bounds
        self._bounded = question.ladder.bounded
        candidates = (*decision.candidates, *(decision.spare if self.may_be_cheaper else ()))
        self._patience = HOLD_SECONDS_BEYOND + sum(
            candidate.model.deadlines.total * (1 + candidate.model.retries.max) for candidate in candidates
        )
        self._holding = Holding(
            question.ladder, caller, request.request_id, request.received_at, self._patience, services
        )
        self._event: UsageEvent | None = None

    @property
    def may_be_cheaper(self) -> bool:
        """Whether a cheaper model may answer than the one that the budget does not allow."""
        asked = self.request.model.partition(":")[0] == "auto"
        return asked and self._question.policy.when_over_budget == "cheaper"

    async def hold(self, candidate: Candidate) -> None:
        """Set aside the most this call may cost on top of the calls before it; only what is not held yet is claimed.

        Raises BudgetExceeded, LimitExceeded or Unavailable, and then nothing more than before is held.
        """
        caller, request = self.caller, self.request
        estimate = self._bounds.held[candidate.model.index]
        grew = await self._holding.take(candidate.model.name, estimate, self.attempts)
        if grew or not self.attempts:
            hold = Hold(
                request_id=request.request_id,
                tenant=caller.tenant,
                key_id=caller.key_id,
                amount=self._holding.amount,
                created_at=request.received_at,
                expires_at=time.time() + self._patience,
                key_name=caller.key_name,
                requested_model=request.model,
                project=caller.project,
                end_user=request.end_user,
                claims=self._holding.claims(),
            )
            self._services.spool.hold(hold)

    @property
    def held_without_store(self) -> bool:
        """Whether the hold is in the tenant's allowance, because counters could not be asked."""
        return self._holding.without_store

    def held_for(self, candidate: Candidate) -> int:
        """Pico-USD that a call to this candidate would hold."""
        return self._bounds.held[candidate.model.index].amount

    def body_for(self, model: Model) -> dict[str, Any]:
        """What the upstream gets. A bound that a budget or limit relies on is sent along when the request names none."""
        body, index = self.request.body, model.index
        if self._bounded and self._bounds.held[index] is self._bounds.worst[index]:
            limit = limit_to_send(body, model, self.facts.prompt)
            if limit is not None:
                return {**body, limit[0]: limit[1]}
        return body

    def limit_headers(self, event: UsageEvent | None = None) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers; exact once the request is metered."""
        return self._holding.limit_headers(event.attempts if event is not None else None)

    def note(
        self,
        model: Model,
        started: float,
        status: Literal["ok", "error", "cut"],
        *,
        error_code: str | None = None,
        raw_usage: dict[str, Any] | None = None,
        service_tier: object = None,
        output_characters: int = 0,
        reasoning_characters: int = 0,
    ) -> Attempt:
        """Keep one upstream call: `started` on the monotonic clock; usage as reported, or estimated when it was cut or what
        was reported counts nothing: an answer is not free because its report cannot be read.

        `service_tier` is what the reply says; some providers say it in the usage. It decides the price with the input tokens.
        """
        seconds = time.perf_counter() - started
        usage = Usage()
        if raw_usage is not None:
            usage = normalise(raw_usage, model.usage)
        unread = raw_usage is None or (usage.estimated and not usage.input_total + usage.output_total)
        if unread and status != "error":
            guess = estimate_usage(self.facts.prompt_characters, output_characters, reasoning_characters)
            usage = dataclasses.replace(guess, gpu_seconds=usage.gpu_seconds)
        tier = served_tier(service_tier, raw_usage)
        cost = self._prices.cost(model).at(usage.input_total, tier)
        charge = self._charged(model).at(usage.input_total, tier)
        by_time = cost.rates["gpu_seconds"] or charge.rates["gpu_seconds"]
        by_time = by_time or (cost.source == UNPRICED and model.provider in SELF_HOSTED)
        timed = by_time and error_code != ProviderUnreachable.code
        if timed and not usage.gpu_seconds:
            usage = dataclasses.replace(usage, gpu_seconds=round(seconds * 1_000_000))
        attempt = Attempt(
            number=len(self.attempts) + 1,
            model=model.name,
            provider=model.provider,
            upstream_model=model.upstream_model,
            started_at=self.request.received_at + (started - self.request.started),
            seconds=seconds,
            status=status,
            error_code=error_code,
            usage=usage,
            raw_usage=raw_usage,
            cost=rate_usage(usage, cost),
            charge=rate_usage(usage, charge),
            service_tier=tier,
            energy=read_energy(raw_usage) if model.provider in SELF_HOSTED else None,
            reserved=self._bounds.held[model.index].amount if charge.source == UNPRICED and usage.quantities() else 0,
        )
        self.attempts.append(attempt)
        if status == "ok" and not usage.estimated:
            self._services.outputs.note(model.name, usage.output_total, choices_of(self.request.body))
        if status == "ok":
            learn_answer(self._question, attempt, model, self.first_byte, self._services.routing)
        return attempt

    def blame(self, model: Model, error: ProviderError) -> None:
        """A call to this model failed; the router thinks less of it for a while."""
        self._services.routing.health.failed(model.index, error)

    async def close(self, outcome: Outcome, error: PenstockError | None = None) -> UsageEvent:
        """Write the event to the spool, then give back what was held beyond it. Closing twice changes nothing."""
        if self._event is not None:
            return self._event
        event = self._event = self._build_event(outcome, error)
        try:
            self._services.spool.settle(event)
            self._services.metrics.record(event)
        finally:
            await self._holding.correct(event.attempts)
        return event

    @property
    def event(self) -> UsageEvent | None:
        """What the request left behind, once it is closed."""
        return self._event

    def saved(self, event: UsageEvent) -> int:
        """Pico-USD not spent: the same tokens at the dearest deployment that could have answered, less the charge."""
        if self.request.model.partition(":")[0] != "auto" or not event.attempts or event.reserved:
            return 0
        last = event.attempts[-1]
        names = {candidate.model.name for candidate in self.decision.candidates}
        names |= {rejected.model for rejected in self.decision.rejected if rejected.qualified}
        catalog, costs = self._services.catalog, self._prices.costs
        models = [model for model in catalog.models if model.name in names and costs[model.index] is not None]
        lists = [self._charged(model).at(last.usage.input_total, last.service_tier) for model in models]
        return max(0, max(price_usage(last.usage, price) for price in lists) - event.charge)

    def _charged(self, model: Model) -> PriceSheet:
        return self._prices.charge(self.caller.tenant, model)

    def _build_event(self, outcome: Outcome, error: PenstockError | None) -> UsageEvent:
        request, last = self.request, self.attempts[-1] if self.attempts else None
        ended = time.perf_counter()
        answered = last if last is not None and last.status != "error" else None
        decision = self.decision
        tiers = {each.model.name: each.model.tier for each in (*decision.candidates, *decision.spare)}
        score = decision.score
        return UsageEvent(
            request_id=request.request_id,
            tenant=self.caller.tenant,
            key_id=self.caller.key_id,
            key_name=self.caller.key_name,
            session_id=request.options.session_id,
            tags=request.options.tags,
            requested_model=request.model,
            model=answered.model if answered else None,
            provider=answered.provider if answered else None,
            tier=tiers.get(answered.model) if answered else None,
            difficulty=score.difficulty if score else None,
            artifact=score.artifact if score else None,
            decision=decision.reason,
            explanation=explain_decision(decision) | ({"held_without_store": True} if self.held_without_store else {}),
            outcome=outcome,
            error_code=error.code if error else None,
            streamed=request.stream,
            disconnected=self.disconnected,
            started_at=request.received_at,
            finished_at=request.received_at + (ended - request.started),
            seconds_to_first_token=self.first_byte - request.started if self.first_byte is not None else None,
            overhead_seconds=max(0.0, ended - request.started - self.upstream_seconds),
            hold=self._holding.amount,
            attempts=tuple(self.attempts),
            project=self.caller.project,
            end_user=request.end_user,
            routing=self._remembered(),
        )

    def _remembered(self) -> RoutingRecord | None:
        """What making the decision again needs, as far as the policy lets it be kept."""
        options, how = self.request.options, self._question.policy.remember
        return remember(
            self._ask,
            self.decision,
            how="nothing" if self.request.beside else how,
            policy=self.caller.policy,
            min_quality=options.min_quality,
            terms=own_terms(options, self.caller),
            sizes=self._sizes() if self._ask.max_cost is not None else {},
            messages=self.request.messages,
            packer=self._services.packer,
        )

    def _sizes(self) -> dict[str, int]:
        """What the bounds of a call's cost follow from, beside prices and the limit of its output."""
        prompt, modalities = self.facts.prompt, self.request.body.get("modalities")
        voice = isinstance(modalities, list) and "audio" in modalities
        return {
            "text": prompt.text,
            "images": prompt.images,
            "audio": prompt.audio,
            "voice": voice,
            "strict": self._bounded,
        }
