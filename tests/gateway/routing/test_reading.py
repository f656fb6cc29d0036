"""How long reading a prompt takes: learnt from first tokens and what was cached, and counted in seconds and in engine time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config_policies import Sla
from gateway.routing.ask import READS_PER_WRITE, TOKENS_PER_SECOND, State
from gateway.routing.averages import FirstTokens
from gateway.routing.decide import decide_route
from gateway.routing.health import Health
from tests.builders import catalog, model
from tests.gateway.routing.test_decide import ask, score
from tests.gateway.routing.test_learning import Clock

HARD = score(0.5, 0.7, 0.9)
TIMED = catalog(
    model("own", "economy", price={"gpu_second": 0.001}), model("api", "premium", price={"input": 0.8, "output": 1})
)
START, READING, WRITING = 0.2, 0.0005, 0.02


def measure(health: Health, input_tokens: int, cached: int = 0, written: int = 100, *, whole: bool = False) -> None:
    first = START + READING * (input_tokens - cached)
    health.answered(0, first + WRITING * written, None if whole else first, written, input_tokens, cached)


def test_reading_speed_is_learnt_and_what_is_cached_saves_its_time() -> None:
    health = Health(2, Clock())
    for place in range(40):
        measure(health, 4000, 3900 if place % 2 else 0)
    state = health.states()[0]
    for given_tokens, cached in ((4000, 0), (4000, 3900), (1500, 700), (8000, 0)):
        expected = START + READING * (given_tokens - cached)
        assert state.first(given_tokens, cached) == pytest.approx(expected, rel=0.02)
        assert state.seconds(50, given_tokens, cached) == pytest.approx(expected + 50 * WRITING, rel=0.02)


def test_noise_in_the_first_token_is_averaged_out() -> None:
    health, chance = Health(1, Clock()), random.Random(3)
    for _ in range(300):
        read = chance.randrange(100, 6000)
        first = START + READING * read + chance.expovariate(2.0)
        health.answered(0, first + 1.0, first, 50, read)
    state = health.states()[0]
    assert state.reading == pytest.approx(READING, rel=0.1)
    first_of_none = state.first(5000, 5000)
    assert first_of_none is not None
    assert first_of_none == pytest.approx(START + 0.5, abs=0.2)


def test_prompts_alike_teach_nothing_so_a_saving_is_assumed_and_a_longer_prompt_is_not_called_late() -> None:
    health = Health(1, Clock())
    for _ in range(10):
        measure(health, 4000)
    state = health.states()[0]
    measured = START + READING * 4000
    assert state.first(4000, 0) == pytest.approx(measured)
    assert state.first(90_000, 0) == pytest.approx(measured)
    assert state.first(4000, 3000) == pytest.approx(measured - 3000 * WRITING / READS_PER_WRITE)


def test_whole_replies_tell_the_same_whether_their_prompts_were_cached_or_not() -> None:
    cold, warm = Health(1, Clock()), Health(1, Clock())
    work = 100 + 4000 / READS_PER_WRITE
    cold.answered(0, work * WRITING, None, 100, 4000)
    warm.answered(0, (work - 3000 / READS_PER_WRITE) * WRITING, None, 100, 4000, 3000)
    for health in (cold, warm):
        state = health.states()[0]
        assert state.first_token is None
        assert state.seconds(100, 4000) == pytest.approx(work * WRITING)
        assert state.seconds(100, 4000, 3000) == pytest.approx((work - 3000 / READS_PER_WRITE) * WRITING)


def test_a_whole_reply_to_a_cached_prompt_is_not_taken_for_fast_writing() -> None:
    health = Health(1, Clock())
    for place in range(20):
        measure(health, 4000, 3900 if place % 2 else 0)
    for place in range(20):
        measure(health, 4000, 3900 if place % 2 else 0, whole=True)
    assert health.states()[0].per_token == pytest.approx(WRITING, rel=0.02)


def test_an_engine_billed_by_time_costs_less_where_the_prompt_is_cached() -> None:
    health = Health(2, Clock())
    for place in range(20):
        measure(health, 4000, 3900 if place % 2 else 0)
    asked = {cached: ask(TIMED, worth=0.0, input_tokens=4000, states=health.states(), cached={0: cached})
             for cached in (0, 3900)}  # fmt: skip
    cold, warm = (next(each for each in decide_route(asked[cached], HARD).candidates if each.model.name == "own")
                  for cached in (0, 3900))  # fmt: skip
    assert cold.seconds is not None
    assert warm.seconds is not None
    assert cold.seconds - warm.seconds == pytest.approx(3900 * READING, rel=0.02)
    assert cold.expected_cost - warm.expected_cost == pytest.approx(0.001e12 * 3900 * READING, rel=0.02)
    assert [decide_route(asked[cached], HARD).candidates[0].model.name for cached in (0, 3900)] == ["api", "own"]


def test_of_an_engine_nobody_has_measured_reading_is_priced_too() -> None:
    cold, warm = (
        decide_route(ask(TIMED, worth=0.0, input_tokens=4000, cached={0: cached}), HARD).candidates
        for cached in (0, 3000)
    )
    costs = [next(each.expected_cost for each in found if each.model.name == "own") for found in (cold, warm)]
    seconds = [(100 + read / READS_PER_WRITE) / TOKENS_PER_SECOND for read in (4000, 1000)]
    assert costs == [pytest.approx(0.001e12 * each) for each in seconds]


def test_a_policys_first_token_counts_what_this_prompt_has_in_the_cache() -> None:
    health = Health(2, Clock())
    for place in range(20):
        measure(health, 4000, 3900 if place % 2 else 0)
    sla = Sla(first_token_seconds=1.0, otherwise="reject")
    for cached, possible in ((0, ["api"]), (3900, ["own", "api"])):
        asked = ask(TIMED, worth=0.0, input_tokens=4000, states=health.states(), cached={0: cached}, sla=sla)
        assert sorted(each.model.name for each in decide_route(asked, HARD).candidates) == sorted(possible)


def test_a_deployment_whose_speed_is_unknown_still_has_no_time() -> None:
    assert State().seconds(100, 4000, 3000) is None
    assert State().first(4000, 3000) is None


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 100)), min_size=1, max_size=30),
    st.floats(0, 0.1),
    st.lists(st.floats(0, 300), min_size=30, max_size=30),
)
def test_the_line_goes_through_the_mean_and_never_below_no_time(
    seen: list[tuple[int, float]], assumed: float, pauses: list[float]
) -> None:
    line, now = FirstTokens(300.0), 0.0
    weights: list[float] = []
    for (read, seconds), pause in zip(seen, pauses, strict=False):
        now += pause
        weights = [weight * 0.5 ** (pause / 300.0) for weight in weights] + [1.0]
        line.add(read, seconds, now)
    total = sum(weights)
    mean = sum(weight * seconds for weight, (_, seconds) in zip(weights, seen, strict=True)) / total
    assert line.mean == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert line.read == pytest.approx(sum(w * read for w, (read, _) in zip(weights, seen, strict=True)) / total)
    slope = line.slope(assumed)
    assert line.mean is not None
    assert line.read is not None
    assert slope >= 0.0
    assert line.read == 0.0 or line.mean - slope * line.read >= -1e-9 * max(line.mean, 1.0)
    assert line.slope(0.0) <= slope
