"""Every refusal says used, limit, window and reset, and suggests waiting only where waiting helps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.billing.budgets import budget_claims
from gateway.callers import PERIODS, Budget, Caller, LimitKind, Per, Period, RateLimit, SessionLimits
from gateway.errors import BudgetExceeded, LimitExceeded
from gateway.limits.rates import rate_claim
from gateway.limits.refusals import refusal
from gateway.limits.sessions import Session, session_claims
from gateway.limits.standing import Standing, duration, limit_headers
from gateway.store.base import Refused
from gateway.store.windows import SessionPart, named_window, parse_counter, session_counter, window

MOMENT = datetime(2026, 11, 21, 22, 30, 48, tzinfo=UTC).timestamp()


CALLER = Caller("key_1", "app", "acme")


def refused(
    kind: LimitKind, limit: int, used: int, tokens: int = 1, scope: str = "key:key_1", per: Per = "minute"
) -> LimitExceeded:
    rule = RateLimit(scope, kind, limit, per)
    claim = rate_claim(rule, tokens if kind == "tokens" else 1, "req_1", MOMENT)
    return refusal(Refused(claim, used), rule, CALLER, MOMENT)


def over(budget: Budget, used: int, amount: int) -> LimitExceeded:
    [claim] = budget_claims([budget], amount, MOMENT)
    return refusal(Refused(claim, used), budget, CALLER, MOMENT)


def session_over(part: SessionPart, used: int) -> LimitExceeded:
    limits = SessionLimits(money=5 * 10**12, tokens=1000, steps=20, seconds=600, repeats=3)
    claims = dict(session_claims(Session("session:acme/Run-7", limits, "hash"), 10**11, 300, MOMENT))
    return refusal(Refused(claims[part], used), part, CALLER, MOMENT)


def test_a_budget_refusal_says_everything_and_forbids_retries() -> None:
    error = over(Budget("tenant:acme", 5 * 10**12, "day"), 4_980_000_000_000, 50_000_000_000)
    assert isinstance(error, BudgetExceeded)
    assert error.message == (
        "Budget of tenant 'acme': 4.98 USD of 5 USD per day are used or held, and this request may cost up to 0.05 USD. "
        "It resets at 2026-11-22T00:00:00Z."
    )
    assert error.headers == {"x-should-retry": "false"}
    assert (error.status, error.code) == (429, "budget_exceeded")


def test_a_lifetime_budget_says_that_it_does_not_reset_and_names_the_key() -> None:
    error = over(Budget("key:key_1", 10, "lifetime"), 10, 1)
    assert error.message.startswith("Budget of key 'app': ")
    assert error.message.endswith("It does not reset.")


def test_an_overdraft_and_a_raise_are_told_apart_from_the_limit() -> None:
    usd = 10**12
    error = over(Budget("project:acme/a/b", 5 * usd, "month", overdraft=usd, raised=2 * usd), 6 * usd, 1)
    assert error.message.startswith(
        "Budget of project 'a/b': 6 USD of 5 USD per month (and 1 USD of overdraft), 2 USD of them by a raise are used or held"
    )


def test_a_full_minute_says_when_it_ends() -> None:
    error = refused("requests", 600, 600)
    assert error.message == (
        "Limit of key 'app': 600 of 600 requests per minute are used or held, and this request needs up to 1. "
        "The window resets at 2026-11-21T22:31:00Z."
    )
    assert error.headers == {
        "retry-after": "12",
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12s",
    }
    assert (error.status, error.code) == (429, "limit_exceeded")


def test_a_full_day_says_honestly_how_long_it_lasts() -> None:
    error = refused("requests", 600, 600, scope="user:acme/bob", per="day")
    assert error.message.startswith("Limit of user 'bob': 600 of 600 requests per day are used or held")
    assert (error.headers["retry-after"], error.headers["x-ratelimit-reset-requests"]) == ("5352", "1h29m12s")


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


@pytest.mark.parametrize("kind", ["requests", "tokens", "parallel"])
def test_only_a_models_own_limit_lets_another_model_answer(kind: LimitKind) -> None:
    assert refused(kind, 2, 2, scope="model:acme/gpt").of_model
    assert not refused(kind, 2, 2).of_model
    assert over(Budget("model:acme/gpt", 1, "day"), 1, 1).of_model


@pytest.mark.parametrize(
    ("part", "used", "code", "says"),
    [
        ("money", 5 * 10**12, "session_budget_exceeded", "5 USD of 5 USD are used or held, and this request may cost up"),
        ("tokens", 900, "session_limit_exceeded", "900 of 1000 tokens are used or held, and this request needs up to 300"),
        ("steps", 20, "session_limit_exceeded", "20 of 20 steps are used"),
        ("clock", 3661, "session_time_exceeded", "it began 1h1m1s ago and may last 10m0s"),
        ("repeats", 3, "session_loop_detected", "made 3 times already, and 3 are allowed. Look for a loop"),
    ],
)  # fmt: skip
def test_a_session_refusal_names_the_run_and_what_to_do(part: SessionPart, used: int, code: str, says: str) -> None:
    error = session_over(part, used)
    assert (error.code, error.headers) == (code, {"x-should-retry": "false"})
    assert error.message.startswith("Session 'Run-7': ")
    assert says in error.message


def test_headers_tell_of_the_limit_with_the_least_left() -> None:
    minute, day = RateLimit("key:k", "requests", 10), RateLimit("tenant:t", "requests", 1000, "day")
    tokens = RateLimit("key:k", "tokens", 500)
    headers = limit_headers([Standing(minute, 4), Standing(day, 998), Standing(tokens, 501)], MOMENT)
    assert headers == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "1h29m12s",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "12s",
    }
    assert limit_headers([], MOMENT) == {}


@pytest.mark.parametrize(("seconds", "text"), [(1, "1s"), (60, "1m0s"), (360, "6m0s"), (3605, "1h0m5s")])
def test_times_are_written_as_openai_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("scope", ["tenant:a/b", "tenant:a:b", "key:key_1", "tenant:ünïcode"])
def test_a_counter_name_is_read_back_whatever_its_owner_is_called(scope: str) -> None:
    [budget] = budget_claims([Budget(scope, 1, "week")], 1, MOMENT)
    minute, day = (rate_claim(RateLimit(scope, "tokens", 1, per), 1, "r", MOMENT) for per in ("minute", "day"))
    session = session_counter(scope, "repeats", 60, "hash")
    assert (parse_counter(budget.counter).scope, parse_counter(budget.counter).period) == (scope, "week")
    assert [(name.scope, name.what, name.per) for name in map(parse_counter, (minute.counter, day.counter))] == [
        (scope, "tokens", "minute"), (scope, "tokens", "day"),
    ]  # fmt: skip
    assert (parse_counter(session).scope, parse_counter(session).part, parse_counter(session).label) == (
        scope, "repeats", "60.hash",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["other/x/y", "budget-year/2026/x", "parallel-day/x/y", "session-x/1/y", "no slashes"])
def test_other_names_are_not_counters(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # str.split and our own message
        parse_counter(name)


@pytest.mark.parametrize("period", PERIODS)
def test_the_label_of_a_window_leads_back_to_it(period: Period) -> None:
    found = window(period, MOMENT)
    assert named_window(period, found.label) == found
