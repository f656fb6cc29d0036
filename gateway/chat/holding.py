"""What one request has taken from the counters of everybody it answers to, and what each claim turned out to be.

All claims of a call are taken together or not at all. What a later call of the same request needs is claimed on top, and
only what is not held yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from gateway.billing.away import Served
from gateway.billing.budgets import NO_LIMIT, budget_claims
from gateway.callers import Allowance, Budget, Caller, RateLimit
from gateway.errors import Unavailable
from gateway.limits.estimate import MAX_AMOUNT, Estimate
from gateway.limits.ladder import NOTHING, Ladder
from gateway.limits.rates import rate_claim
from gateway.limits.refusals import Rule, refusal
from gateway.limits.sessions import session_claims
from gateway.limits.standing import Standing, limit_headers
from gateway.services import Services
from gateway.store.base import Claim, Missing, Refused, Taken
from gateway.types import Attempt

What = Literal["money", "tokens", "once"]
"""Claims of money and tokens are corrected to what was used; the others stand as they are."""
ROUNDS = 3
"""How often counters are restored for one hold; a store that forgets them faster than that is of no use."""


class _Wanted(NamedTuple):
    """A claim, why it is made, and whether it is for calls to one model only (`of`)."""

    claim: Claim
    rule: Rule
    what: What
    of: str | None


class Holding:
    """The claims of one request. `amount` is the money held in all, whether or not a budget asks for it."""

    def __init__(
        self,
        ladder: Ladder,
        caller: Caller,
        request_id: str,
        started_at: float,
        lease_seconds: float,
        services: Services,
    ) -> None:
        """`started_at` decides which windows count, as it does in SQL; leases end by themselves after `lease_seconds`."""
        self.amount = 0
        self._ladder = ladder
        self._caller = caller
        self._request_id = request_id
        self._started_at = started_at
        self._lease_seconds = lease_seconds
        self._services = services
        self._claimed: dict[str | None, tuple[int, int]] = {}
        """Money and tokens claimed for all calls (None) and for those to one model."""
        self._held: dict[str, _Wanted] = {}
        """By counter, with the amount taken so far."""
        self._standings: dict[str, tuple[RateLimit, int, str | None]] = {}
        self._epoch: str | None = None
        self._served: Served | None = None

    async def take(self, model: str, estimate: Estimate, attempts: Sequence[Attempt]) -> bool:
        """Claim the most a call to `model` may take on top of the calls before it. Returns whether more is held now.

        Raises a LimitExceeded that says whose limit it is, or Unavailable; nothing more than before is held then.
        """
        ladder, of_model = self._ladder, self._ladder.of_model(model)
        wanted: list[_Wanted] = []
        claimed: dict[str | None, tuple[int, int]] = {None: self._want(wanted, None, ladder, estimate, attempts)}
        if of_model is not NOTHING:
            claimed[model] = self._want(wanted, model, of_model, estimate, attempts)
        if wanted:
            wanted = await self._reserve_or_go_on(wanted, claimed[None][0] - self.amount)
        self._claimed.update(claimed)
        for each in wanted:
            claim = each.claim
            held = self._held.get(claim.counter)
            if held is not None:
                each = each._replace(claim=claim._replace(amount=held.claim.amount + claim.amount))
            self._held[claim.counter] = each
        grew = claimed[None][0] > self.amount or any(each.what != "once" or each.claim.kept for each in wanted)
        self.amount = claimed[None][0]
        return grew

    @property
    def without_store(self) -> bool:
        """Whether counters could not be asked, and the tenant's allowance has (part of) this hold."""
        return self._served is not None

    def corrections(self, attempts: Sequence[Attempt]) -> list[tuple[Claim, int]]:
        """What every claim turned out to be: money as charged, tokens as used, slots given back."""
        changes = []
        for held in self._held.values():
            if held.what != "once":
                money, tokens = _spent(attempts, held.of)
                changes.append((held.claim, money if held.what == "money" else tokens))
            elif held.claim.lease is not None:
                changes.append((held.claim, 0))
        return changes

    async def correct(self, attempts: Sequence[Attempt]) -> None:
        """Give back what was held beyond these attempts, now or as soon as the store answers."""
        changes = self.corrections(attempts)
        if self._served is not None:
            self._services.away.end(self._served, self.amount, _spent(attempts, None)[0], changes)
        elif changes:
            await self._services.corrections.apply(self._request_id, changes, self._epoch)

    def claims(self) -> tuple[tuple[str, int], ...]:
        """What SQL has to know of counters that are rebuilt from it, and that are given back should this process die."""
        return tuple((counter, held.claim.amount) for counter, held in self._held.items() if held.claim.kept)

    def limit_headers(self, attempts: Sequence[Attempt] | None) -> dict[str, str]:
        """`x-ratelimit-*` of the tightest limits; given the attempts of a finished request, with what it really used."""
        if not self._standings:
            return {}
        standings = []
        for limit, used, of in self._standings.values():
            if attempts is not None and limit.kind == "tokens":
                used += _spent(attempts, of)[1] - self._claimed[of][1]
            standings.append(Standing(limit, used))
        return limit_headers(standings, time.time())

    def _want(
        self,
        wanted: list[_Wanted],
        of: str | None,
        allowance: Allowance | Ladder,
        estimate: Estimate,
        attempts: Sequence[Attempt],
    ) -> tuple[int, int]:
        """Add the claims of one allowance; returns the money and tokens that are claimed with them."""
        first, (had_money, had_tokens) = of not in self._claimed, self._claimed.get(of, (0, 0))
        spent_money, spent_tokens = _spent(attempts, of) if attempts else (0, 0)
        money = max(had_money, min(MAX_AMOUNT, estimate.amount + spent_money))
        tokens = max(had_tokens, estimate.tokens + spent_tokens)
        more_money, more_tokens, at = money - had_money, tokens - had_tokens, self._started_at
        if more_money and allowance.budgets:
            claims = budget_claims(allowance.budgets, more_money, at)
            wanted += [_Wanted(claim, rule, "money", of) for claim, rule in zip(claims, allowance.budgets, strict=True)]
        for limit in allowance.limits:
            if limit.kind == "tokens":
                if more_tokens:
                    wanted.append(_Wanted(rate_claim(limit, more_tokens, self._request_id, at), limit, "tokens", of))
            elif first:
                now = time.time() if limit.kind == "parallel" else at
                claim = rate_claim(limit, 1, self._request_id, now, self._lease_seconds)
                wanted.append(_Wanted(claim, limit, "once", of))
        if isinstance(allowance, Ladder) and allowance.session is not None:
            for part, claim in session_claims(allowance.session, more_money, more_tokens, time.time()):
                if part == "money" or part == "tokens":
                    if first or claim.amount:
                        wanted.append(_Wanted(claim, part, part, of))
                elif first:
                    wanted.append(_Wanted(claim, part, "once", of))
        return money, tokens

    async def _reserve_or_go_on(self, wanted: list[_Wanted], amount: int) -> list[_Wanted]:
        """Reserve, or go on without counters where the tenant may: then they have nothing yet, and get the charge later."""
        most = self._caller.estimating.without_store
        if not most:
            return await self._reserve(wanted)
        served = self._served or Served(self._request_id, self._caller.tenant, epoch=self._epoch or "")
        taken = await self._services.away.reserve(served, amount, most, lambda: self._reserve(wanted))
        if taken is not None:
            return taken
        self._served = served
        return [
            each._replace(claim=each.claim._replace(amount=0))
            for each in wanted
            if each.claim.kept and each.what != "once"
        ]

    async def _reserve(self, wanted: list[_Wanted]) -> list[_Wanted]:
        """Take all of them; returns those that were taken. A soft budget is left out when nobody knows what it has used."""
        store, caller = self._services.store, self._caller
        for round_ in range(ROUNDS):
            claims = [each.claim for each in wanted]
            tell = [
                position
                for position, each in enumerate(wanted)
                if (each.rule.hard if isinstance(each.rule, Budget) else isinstance(each.rule, RateLimit))
                and each.claim.lease is None
            ]
            if round_ == 0:
                answer = await store.reserve(claims, tell=tell)
            else:
                async with self._services.rebuild.turn:
                    answer = await store.reserve(claims, tell=tell)
            if isinstance(answer, Missing):
                try:
                    await self._services.rebuild.restore(answer, caller.tenant, again=round_ > 0)
                except Unavailable:
                    if any(claim.limit != NO_LIMIT for claim in answer.claims):
                        raise
                    wanted = [each for each in wanted if each.claim not in answer.claims]
                continue
            if isinstance(answer, Refused):
                raise self._refuse(answer, wanted[claims.index(answer.claim)].rule)
            self._epoch = self._epoch or store.epoch
            if isinstance(answer, Taken):
                self._tell(answer, [wanted[position] for position in tell])
            return wanted
        raise Unavailable("the shared store loses its counters as fast as they are restored; nothing was reserved.")

    def _tell(self, answer: Taken, told: list[_Wanted]) -> None:
        for each, value in zip(told, answer.values, strict=True):
            if isinstance(each.rule, Budget):
                self._services.routing.purses.note(each.claim.counter, value, each.rule.limit)
            elif isinstance(each.rule, RateLimit):
                self._standings[each.claim.counter] = (each.rule, value, each.of)

    def _refuse(self, refused: Refused, rule: Rule) -> Exception:
        scope, what = ("session", rule) if isinstance(rule, str) else (
            rule.scope.partition(":")[0], rule.kind if isinstance(rule, RateLimit) else "money"
        )  # fmt: skip
        self._services.metrics.add("penstock_limit_refusals_total", (scope, what))
        return refusal(refused, rule, self._caller, self._started_at)


def _spent(attempts: Sequence[Attempt], of: str | None) -> tuple[int, int]:
    """Money charged or still held, and tokens used, of all attempts or those of one model."""
    money = tokens = 0
    for attempt in attempts:
        if of is None or attempt.model == of:
            money += attempt.owed
            tokens += attempt.usage.input_total + attempt.usage.output_total
    return money, tokens
