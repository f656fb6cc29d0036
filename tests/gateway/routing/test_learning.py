"""What a process learns from its calls: health, speed and shares, on a clock of the test's own."""

from __future__ import annotations

import pytest

from gateway.config_policies import Sla
from gateway.errors import ProviderFailed, ProviderRejected, StreamCut
from gateway.routing.ask import Ask, Candidate
from gateway.routing.decide import decide_route
from gateway.routing.health import (
    LONGEST_PROBE_SECONDS,
    LONGEST_RETRY_SECONDS,
    PROBE_SECONDS,
    RETRY_SECONDS,
    Health,
)
from gateway.routing.share import Shares
from tests.builders import catalog, model
from tests.gateway.routing.test_decide import ask, score

TWO = catalog(model("a"), model("b", price={"input": 3, "output": 6}))
HARD = score(0.5, 0.7, 0.9)
FAILED = ProviderFailed("no")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(index: int) -> Candidate:
    return Candidate(TWO.models[index], 0.5, 1, 1)


def test_failures_in_a_row_make_a_deployment_failing_and_the_first_answer_clears_it(clock: Clock) -> None:
    health = Health(2, clock)
    for _ in range(2):
        health.failed(0, FAILED)
    assert not health.states()[0].failing
    health.failed(0, StreamCut("cut"))
    state = health.states()[0]
    assert (state.failing, state.error_rate, state.probe_at) == (True, 1.0, clock.now + PROBE_SECONDS)
    assert not health.states()[1].failing
    health.answered(0, 1.0, None, 10)
    assert (health.states()[0].failing, health.states()[0].error_rate) == (False, 0.0)


def test_more_than_half_of_many_calls_failing_is_enough_and_half_is_not(clock: Clock) -> None:
    for pattern, failing in (("ok failed", False), ("failed failed ok", True)):
        health = Health(1, clock)
        seen = []
        for _ in range(10):
            for word in pattern.split():
                health.failed(0, FAILED) if word == "failed" else health.answered(0, 1.0, None, 1)
                seen.append(health.states()[0].failing)
        assert any(seen) is failing
        assert not any(seen[:9]), "few calls say nothing yet"


def test_what_is_the_requests_own_fault_says_nothing_of_the_deployment(clock: Clock) -> None:
    health = Health(1, clock)
    for _ in range(10):
        health.failed(0, ProviderRejected("your fault"))
    assert health.states()[0].error_rate == 0.0


def test_one_request_probes_and_a_failed_probe_doubles_the_pause(clock: Clock) -> None:
    health = Health(2, clock)
    for _ in range(3):
        health.failed(0, FAILED)
    pause = PROBE_SECONDS
    for _ in range(6):
        clock.now = health.states()[0].probe_at
        health.chosen(candidate(1))
        assert health.states()[0].probe_at == clock.now, "another deployment's request is no probe"
        health.chosen(candidate(0))
        assert health.states()[0].probe_at == clock.now + pause
        health.failed(0, FAILED)
        health.failed(0, FAILED)  # a call that had begun before
        pause = min(2 * pause, LONGEST_PROBE_SECONDS)
        assert health.states()[0].probe_at == clock.now + pause
    clock.now += pause
    health.chosen(candidate(0))
    health.answered(0, 1.0, None, 1)
    assert not health.states()[0].failing


def test_old_errors_fade(clock: Clock) -> None:
    health = Health(1, clock)
    for _ in range(2):
        health.failed(0, FAILED)
    clock.now += 600
    for _ in range(2):
        health.answered(0, 1.0, None, 1)
    assert health.states()[0].error_rate < 0.001


def test_speed_is_learnt_from_streams_and_from_whole_replies(clock: Clock) -> None:
    health = Health(2, clock)
    assert health.states()[0].seconds(100) is None
    health.answered(0, 2.5, 0.5, 100)
    assert health.states()[0].first_token == 0.5
    assert health.states()[0].per_token == pytest.approx(0.02)
    assert health.states()[0].seconds(200) == pytest.approx(4.5)
    health.answered(1, 3.0, None, 100)
    assert (health.states()[1].first_token, health.states()[1].seconds(50)) == (None, pytest.approx(1.5))


def test_a_slow_time_is_outweighed_and_at_last_forgotten(clock: Clock) -> None:
    health = Health(1, clock)
    health.answered(0, 10.0, 10.0, 0)
    clock.now += 300
    for _ in range(9):
        health.answered(0, 1.0, 1.0, 0)
    first = health.states()[0].first_token
    assert first is not None
    assert 1.0 < first < 1.6
    clock.now += 3000
    assert health.states()[0].first_token is None, "though nobody asked it again"


def test_errors_are_forgotten_without_another_call_but_not_what_makes_it_failing(clock: Clock) -> None:
    health = Health(2, clock)
    for index in (0, 0, 0, 1):
        health.failed(index, FAILED)
    clock.now += 3000
    assert [state.error_rate for state in health.states()] == [1.0, 0.0]
    assert health.states()[0].failing


def slow(health: Health) -> Ask:
    """A request that takes the cheaper `a`, of a policy that wants answers within ten seconds."""
    sla = Sla(total_seconds=10, otherwise="reject")
    return ask(TWO, worth=0.0, sla=sla, states=health.states(), now=health.now())


def test_a_late_deployment_is_tried_by_one_request_and_the_first_quick_answer_brings_it_back(clock: Clock) -> None:
    health = Health(2, clock)
    health.answered(0, 40.0, None, 100)
    assert decide_route(slow(health), HARD).candidates[0].model.name == "b"
    pause = RETRY_SECONDS
    for _ in range(5):
        clock.now += pause
        tried = decide_route(slow(health), HARD).candidates[0]
        assert (tried.model.name, tried.retried) == ("a", True)
        health.chosen(tried)
        assert decide_route(slow(health), HARD).candidates[0].model.name == "b", "one tries, the others wait"
        health.answered(0, 40.0, None, 100)
        pause = min(2 * pause, LONGEST_RETRY_SECONDS)
    clock.now += pause
    health.chosen(decide_route(slow(health), HARD).candidates[0])
    health.answered(0, 1.0, None, 100)
    back = decide_route(slow(health), HARD).candidates[0]
    assert (back.model.name, back.retried) == ("a", False)


def test_the_share_of_upper_answers_stays_below_the_cap(clock: Clock) -> None:
    shares = Shares(clock)
    upper = 0
    for number in range(1, 1001):
        tier = "economy" if shares.spent("key", 0.2, 3600.0) else "premium"
        upper += tier == "premium"
        assert upper <= max(1, number / 5), number
        shares.note("key", tier == "premium", 3600.0)
        clock.now += 1.0
    assert 195 <= upper <= 200
    assert not shares.spent("key", None, 3600.0)
    assert not shares.spent("another key", 0.2, 3600.0)
    assert shares.spent("another key", 0.0, 3600.0)


def test_a_spent_share_fades_with_the_window_and_keys_are_bounded(clock: Clock) -> None:
    shares = Shares(clock, most=2)
    for key in ("one", "two", "three"):
        for _ in range(3):
            shares.note(key, True, 60.0)
    assert shares.spent("three", 0.1, 60.0)
    assert not shares.spent("one", 0.1, 60.0), "it was forgotten"
    clock.now += 600
    assert not shares.spent("three", 0.1, 60.0)


def test_some_requests_may_go_up_before_their_share_is_looked_at(clock: Clock) -> None:
    shares = Shares(clock, free=20)
    up = []
    for _ in range(200):
        up.append(not shares.spent("key", 0.5, 3600.0))
        shares.note("key", up[-1], 3600.0)
        clock.now += 1.0
    assert all(up[:20]), "too few to say what the key's share is"
    assert not any(up[20:39]), "all of the first went up: as many that do not have to follow"
    assert 98 <= sum(up) <= 100
    assert not shares.spent("key", 1.0, 3600.0)
    assert shares.spent("new key", 0.0, 3600.0), "a share of nothing is no share"
