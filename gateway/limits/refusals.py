"""A refused claim in words: whose, used, limit, window and reset, as the error that answers the request (pure)."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.callers import Budget, Caller, RateLimit
from gateway.errors import (
    BudgetExceeded,
    LimitExceeded,
    SessionBudgetExceeded,
    SessionExceeded,
    SessionLoop,
    SessionTooLong,
)
from gateway.limits.standing import Standing, duration, limit_headers, seconds_left
from gateway.money import format_usd
from gateway.store.base import Refused
from gateway.store.windows import SessionPart, window

PARALLEL_RETRY_SECONDS = 1
_NO_RETRY = {"x-should-retry": "false"}

Rule = Budget | RateLimit | SessionPart
"""Why a claim was made: a budget, a limit, or one limit of an agent run."""


def refusal(refused: Refused, rule: Rule, caller: Caller, now: float) -> LimitExceeded:
    """The error for a claim that did not fit. Waiting is suggested (`retry-after`) only where it can help."""
    if isinstance(rule, str):
        return _session_over(refused, rule, caller)
    if isinstance(rule, Budget):
        return _over_budget(refused, rule, caller, now)
    return _over_limit(refused, rule, caller, now)


def owner(scope: str, caller: Caller) -> str:
    """Who a scope belongs to, by the name that people know: a key by its name, not its id."""
    kind, _, name = scope.partition(":")
    if kind == "key":
        name = caller.key_name
    elif kind != "tenant":
        name = name.removeprefix(f"{caller.tenant}/")
    return f"{kind} {name!r}"


def _over_budget(refused: Refused, budget: Budget, caller: Caller, now: float) -> BudgetExceeded:
    ends = window(budget.period, now).ends_at
    reset = "It does not reset." if ends is None else f"It resets at {_moment(ends)}."
    beyond = f" (and {format_usd(budget.overdraft)} USD of overdraft)" if budget.overdraft else ""
    raised = f", {format_usd(budget.raised)} USD of them by a raise" if budget.raised else ""
    return BudgetExceeded(
        f"Budget of {owner(budget.scope, caller)}: {format_usd(refused.used)} USD of {format_usd(budget.limit)} USD per "
        f"{budget.period}{beyond}{raised} are used or held, and this request may cost up to "
        f"{format_usd(refused.claim.amount)} USD. {reset}",
        of_model=budget.scope.startswith("model:"),
    )


def _over_limit(refused: Refused, limit: RateLimit, caller: Caller, now: float) -> LimitExceeded:
    who, needed = owner(limit.scope, caller), refused.claim.amount
    of_model = limit.scope.startswith("model:")
    if limit.kind == "parallel":
        return LimitExceeded(
            f"Parallel limit of {who}: {refused.used} requests of {limit.limit} allowed are in flight. "
            "Try again when one has finished.",
            headers={"retry-after": str(PARALLEL_RETRY_SECONDS)},
            of_model=of_model,
        )
    headers = limit_headers([Standing(limit, refused.used)], now)
    if needed > limit.limit:
        return LimitExceeded(
            f"Limit of {who}: this request may need {needed} {limit.kind}, more than the {limit.limit} per "
            f"{limit.per} allowed. Lower max_completion_tokens or shorten the prompt; waiting does not help.",
            headers={**headers, **_NO_RETRY},
            of_model=of_model,
        )
    return LimitExceeded(
        f"Limit of {who}: {refused.used} of {limit.limit} {limit.kind} per {limit.per} are used or held, and this "
        f"request needs up to {needed}. The window resets at {_moment(window(limit.per, now).ends_at or now)}.",
        headers={**headers, "retry-after": str(seconds_left(limit, now))},
        of_model=of_model,
    )


def _session_over(refused: Refused, part: SessionPart, caller: Caller) -> SessionExceeded:
    name = owner(refused.claim.counter.split("/", 2)[2], caller).removeprefix("session ")
    who, limit, amount = f"Session {name}", refused.claim.limit, refused.claim.amount
    anew = "Continue under another session_id, or have the limit raised."
    if part == "money":
        return SessionBudgetExceeded(
            f"{who}: {format_usd(refused.used)} USD of {format_usd(limit)} USD are used or held, and this request may cost "
            f"up to {format_usd(amount)} USD. Lower max_completion_tokens, or c{anew[1:]}"
        )
    if part == "clock":
        return SessionTooLong(f"{who}: it began {duration(refused.used)} ago and may last {duration(limit)}. {anew}")
    if part == "repeats":
        return SessionLoop(
            f"{who}: this request was made {refused.used} times already, and {limit} are allowed. "
            "Look for a loop in the agent; a request with other messages is let through."
        )
    needs = f", and this request needs up to {amount}" if part == "tokens" else ""
    return SessionExceeded(f"{who}: {refused.used} of {limit} {part} are used or held{needs}. {anew}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
