"""The ladder: every budget and limit that one request answers to, and those of the model it is sent to (pure)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.callers import Allowance, Budget, Caller, Named, RateLimit, scope_of
from gateway.limits.sessions import Session, hash_request
from gateway.value import value

NOTHING = Allowance()


@value
class Ladder:
    """What a request is subject to, whatever model answers; `named` knows what the models add."""

    budgets: tuple[Budget, ...]
    limits: tuple[RateLimit, ...]
    session: Session | None
    tenant: str
    named: Named | None

    def of_model(self, name: str) -> Allowance:
        """What a call to this model is subject to besides."""
        return NOTHING if self.named is None else self.named.models.get(name, NOTHING)

    @property
    def bounded(self) -> bool:
        """Whether something is refused when it costs too much, so that the most a call can cost must be sure."""
        of_run = self.session.limits if self.session is not None else None
        if of_run is not None and (of_run.money is not None or of_run.tokens is not None):
            return True
        if _refuses(self):
            return True
        return self.named is not None and any(map(_refuses, self.named.models.values()))


def _refuses(each: Ladder | Allowance) -> bool:
    """Whether a budget is hard, or tokens are limited."""
    # Lists, as this is asked for every request and most have neither: making a generator takes longer.
    hard = [budget for budget in each.budgets if budget.hard]
    return bool(hard or [limit for limit in each.limits if limit.kind == "tokens"])


def ladder_of(
    caller: Caller,
    end_user: str | None = None,
    tags: Sequence[str] = (),
    session_id: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> Ladder:
    """The ladder of one request; `body` is looked at only where loops are to be found. A user whom nobody
    has configured gets `each_user`; other unknown names add nothing."""
    named = caller.named
    if named is None:
        return Ladder(caller.budgets, caller.limits, None, caller.tenant, None)
    found = []
    if end_user is not None:
        known = named.users.get(end_user)
        found.append(known if known is not None else _for_user(named.each_user, end_user))
    found += [named.tags[tag] for tag in dict.fromkeys(tags) if tag in named.tags]
    session = None
    if session_id is not None and named.sessions is not None:
        request = hash_request(body) if body is not None and named.sessions.repeats is not None else ""
        session = Session(scope_of("session", caller.tenant, session_id), named.sessions, request)
    return Ladder(
        (*caller.budgets, *(budget for each in found for budget in each.budgets)),
        (*caller.limits, *(limit for each in found for limit in each.limits)),
        session,
        caller.tenant,
        named,
    )


def _for_user(each: Allowance, user: str) -> Allowance:
    """The template with the user's name at the end of its scopes."""
    if not (each.budgets or each.limits):
        return each
    return Allowance(
        tuple(dataclasses.replace(budget, scope=budget.scope + user) for budget in each.budgets),
        tuple(dataclasses.replace(limit, scope=limit.scope + user) for limit in each.limits),
    )
