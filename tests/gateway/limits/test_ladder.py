"""What one request answers to: its owners, and whatever it names; nothing that somebody could escape by a new name."""

from __future__ import annotations

import pytest

from gateway.callers import Allowance, Budget, Caller, Named, RateLimit, SessionLimits
from gateway.limits.ladder import NOTHING, ladder_of
from gateway.limits.sessions import hash_request, session_claims

TENANT = Budget("tenant:acme", 100, "month")
KEY = RateLimit("key:key_1", "requests", 5)
EACH = Allowance((Budget("user:acme/", 7, "day", overdraft=2),), (RateLimit("user:acme/", "tokens", 9, "day"),))
EVE = Allowance((Budget("user:acme/eve", 1, "day"),))
BATCH = Allowance((Budget("tag:acme/batch", 50, "day"),))
SMALL = Allowance((), (RateLimit("model:acme/small", "tokens", 10),))
NAMED = Named(
    each_user=EACH,
    users={"eve": EVE},
    models={"small": SMALL},
    tags={"batch": BATCH},
    sessions=SessionLimits(repeats=2),
)
CALLER = Caller("key_1", "app", "acme", budgets=(TENANT,), limits=(KEY,), named=NAMED)


def test_a_caller_without_named_rules_has_its_own_ones_whatever_it_names() -> None:
    plain = Caller("key_1", "app", "acme", budgets=(TENANT,), limits=(KEY,))
    ladder = ladder_of(plain, "bob", ("batch",), "run", {})
    assert (ladder.budgets, ladder.limits, ladder.session) == ((TENANT,), (KEY,), None)
    assert ladder.of_model("small") is NOTHING


def test_an_unknown_user_gets_the_limits_of_each_user_under_its_own_name() -> None:
    ladder = ladder_of(CALLER, "bob/../eve")
    assert ladder.budgets == (TENANT, Budget("user:acme/bob/../eve", 7, "day", overdraft=2))
    assert ladder.limits == (KEY, RateLimit("user:acme/bob/../eve", "tokens", 9, "day"))


def test_a_configured_user_has_its_own_entry_instead() -> None:
    assert ladder_of(CALLER, "eve").budgets == (TENANT, *EVE.budgets)


def test_every_tag_counts_once_and_unknown_ones_add_nothing() -> None:
    assert ladder_of(CALLER, tags=("batch", "other", "batch")).budgets == (TENANT, *BATCH.budgets)


def test_models_add_theirs_when_they_are_called() -> None:
    ladder = ladder_of(CALLER)
    assert ladder.limits == (KEY,)
    assert ladder.of_model("small") is SMALL
    assert ladder.of_model("large") is NOTHING


def test_a_run_is_limited_when_it_is_named() -> None:
    assert ladder_of(CALLER).session is None
    session = ladder_of(CALLER, session_id="run/7", body={"messages": []}).session
    assert session is not None
    assert session.scope == "session:acme/run/7"
    [(part, claim)] = session_claims(session, 5, 6, 1000.0)
    assert part == "repeats"
    assert claim.counter == f"session-repeats/86400.{session.request}/session:acme/run/7"
    assert (claim.amount, claim.limit, claim.sliding, claim.kept) == (1, 2, True, False)


def test_money_tokens_and_steps_of_a_run_are_kept_and_its_clock_is_a_clock() -> None:
    limits = SessionLimits(money=1, tokens=2, steps=3, seconds=4, repeats=None, idle_seconds=60)
    session = ladder_of(Caller("k", "n", "acme", named=Named(sessions=limits)), session_id="r", body={}).session
    assert session is not None
    claims = dict(session_claims(session, 10, 20, 1000.5))
    assert {part: (claim.amount, claim.limit, claim.kept, claim.clock) for part, claim in claims.items()} == {
        "money": (10, 1, True, False),
        "tokens": (20, 2, True, False),
        "steps": (1, 3, True, False),
        "clock": (1000, 4, False, True),
    }
    assert {claim.expires_at for claim in claims.values()} == {1060.5}


def test_a_request_repeats_another_when_it_asks_the_same_however_it_samples() -> None:
    first = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [{"a": 1, "b": 2}]}
    again = {**first, "tools": [{"b": 2, "a": 1}], "temperature": 1, "seed": 7, "stream": True}
    assert hash_request(first) == hash_request(again)
    for other in ({"model": "n"}, {"messages": []}, {"tools": []}):
        assert hash_request({**first, **other}) != hash_request(first)


@pytest.mark.parametrize(
    ("caller", "bounded"),
    [
        (Caller("k", "n", "t"), False),
        (Caller("k", "n", "t", budgets=(Budget("tenant:t", 1, "day", hard=False),)), False),
        (Caller("k", "n", "t", budgets=(Budget("tenant:t", 1, "day"),)), True),
        (Caller("k", "n", "t", limits=(RateLimit("key:k", "requests", 1), RateLimit("key:k", "parallel", 1))), False),
        (Caller("k", "n", "t", limits=(RateLimit("key:k", "tokens", 1, "day"),)), True),
        (Caller("k", "n", "t", named=Named(models={"small": SMALL})), True),
        (Caller("k", "n", "t", named=Named(sessions=SessionLimits(steps=3))), False),
        (Caller("k", "n", "t", named=Named(sessions=SessionLimits(tokens=3))), True),
    ],
)
def test_the_most_a_call_can_cost_must_be_sure_where_something_hard_depends_on_it(
    caller: Caller, bounded: bool
) -> None:
    assert ladder_of(caller, session_id="run").bounded is bounded
