"""Every refusal says used, limit, window and reset, and suggests waiting only where waiting helps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.billing.budgets import budget_claims
from gateway.callers import Budget, Caller, LimitKind, RateLimit
from gateway.errors import BudgetExceeded, LimitExceeded
from gateway.limits.rates import rate_claims
from gateway.limits.refusals import limit_headers, refusal
from gateway.store.base import Refused
from gateway.store.windows import parse_counter

MOMENT = datetime(2026, 11, 21, 22, 30, 48, tzinfo=UTC).timestamp()


def refused(kind: LimitKind, limit: int, used: int, tokens: int = 1) -> LimitExceeded:
    caller = Caller("key_1", "app", "acme", limits=(RateLimit("key:key_1", kind, limit),))
    [claim] = rate_claims(caller, tokens, "req_1", MOMENT)
    return refusal(Refused(claim, used), MOMENT)


def test_a_budget_refusal_says_everything_and_forbids_retries() -> None:
    caller = Caller("key_1", "app", "acme", budgets=(Budget("tenant:acme", 5 * 10**12, "day"),))
    [claim] = budget_claims(caller, 50_000_000_000, MOMENT)
    error = refusal(Refused(claim, 4_980_000_000_000), MOMENT)
    assert isinstance(error, BudgetExceeded)
    assert error.message == (
        "Budget of tenant 'acme': 4.98 USD of 5 USD per day are used or held, and this request may cost up to 0.05 USD. "
        "It resets at 2026-11-22T00:00:00Z."
    )
    assert error.headers == {"x-should-retry": "false"}
    assert (error.status, error.code) == (429, "budget_exceeded")


def test_a_lifetime_budget_says_that_it_does_not_reset() -> None:
    caller = Caller("key_1", "app", "acme", budgets=(Budget("key:key_1", 10, "lifetime"),))
    [claim] = budget_claims(caller, 1, MOMENT)
    assert refusal(Refused(claim, 10), MOMENT).message.endswith("It does not reset.")


def test_a_full_minute_says_when_it_ends() -> None:
    error = refused("requests", 600, 600)
    assert error.message == (
        "Limit of key 'key_1': 600 of 600 requests per minute are used or held, and this request needs up to 1. "
        "The window resets at 2026-11-21T22:31:00Z."
    )
    assert error.headers == {
        "retry-after": "12",
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12s",
    }
    assert (error.status, error.code) == (429, "limit_exceeded")


def test_tokens_that_are_left_are_told() -> None:
    error = refused("tokens", 1000, 400, tokens=700)
    assert error.headers["x-ratelimit-remaining-tokens"] == "600"
    assert "x-should-retry" not in error.headers


def test_a_request_larger_than_its_limit_is_told_not_to_wait() -> None:
    error = refused("tokens", 1000, 0, tokens=5000)
    assert "may need 5000 tokens, more than the 1000 per minute allowed" in error.message
    assert error.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.headers


def test_a_parallel_refusal_asks_to_come_back_soon() -> None:
    error = refused("parallel", 2, 2)
    assert "2 requests of 2 allowed are in flight" in error.message
    assert error.headers == {"retry-after": "1"}


def test_headers_are_given_for_minutes_only() -> None:
    caller = Caller("key_1", "app", "acme", budgets=(Budget("key:key_1", 10, "day"),))
    [claim] = budget_claims(caller, 1, MOMENT)
    assert limit_headers(claim, 0, MOMENT) == {}


@pytest.mark.parametrize("scope", ["tenant:a/b", "tenant:a:b", "key:key_1", "tenant:ünïcode"])
def test_a_counter_name_is_read_back_whatever_its_owner_is_called(scope: str) -> None:
    caller = Caller("k", "n", "t", budgets=(Budget(scope, 1, "week"),), limits=(RateLimit(scope, "tokens", 1),))
    [budget], [limit] = budget_claims(caller, 1, MOMENT), rate_claims(caller, 1, "r", MOMENT)
    assert (parse_counter(budget.counter).scope, parse_counter(budget.counter).period) == (scope, "week")
    assert (parse_counter(limit.counter).scope, parse_counter(limit.counter).what) == (scope, "tokens")


@pytest.mark.parametrize("name", ["other/x/y", "budget-year/2026/x", "requests-day/x/y", "no slashes"])
def test_other_names_are_not_counters(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # str.split and our own message
        parse_counter(name)
