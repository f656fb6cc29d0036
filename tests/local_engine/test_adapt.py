"""Draft lengths follow what they bring, on machines and answers of every kind, and never cost more than a few percent.

The clock is the test's own: a step takes what a made-up machine would take, so nothing here depends on the real one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from local_engine.request import Request, SamplingParams
from local_engine.speculative.adapt import Candidate, Planner
from local_engine.speculative.step_costs import StepCosts

Machine = Callable[[int], float]
MOST = 7


def flat(rows: int) -> float:
    """Up to sixteen rows cost what one costs, as where reading the weights is all."""
    return 0.01 * max(1.0, rows / 16)


def steep(rows: int) -> float:
    """Every row costs as much as the first."""
    return 0.01 * rows


def half(rows: int) -> float:
    """A row more costs half a step."""
    return 0.01 * (1 + 0.5 * (rows - 1))


def run(
    machine: Machine, chance: float, *, requests: int = 1, steps: int = 600, drafting: float = 0.0, noise: float = 0.0,
    planner: Planner | None = None, said: float | None = None,
) -> tuple[float, float]:  # fmt: skip
    """(speed against plain decoding, drafts per step over the last half) when each draft is kept with `chance`.

    A drafter that takes `drafting` seconds for a token says that it has the chance `said`, the real one if None.
    """
    dice = random.Random(3)
    planner = planner or Planner()
    answers = [Request(number, [1], SamplingParams(max_tokens=10**6)) for number in range(requests)]
    spent = tokens = 0.0
    late = 0
    for step in range(steps):
        candidates, depth, usual = [Candidate(each, MOST, "test") for each in answers], 0, 0.0
        if drafting:
            candidates, depth = ask(planner, answers, chance if said is None else said)
        wanted = planner.plan(requests, candidates) or [0] * requests
        if depth:
            price = planner.price(requests)
            worth = (sum(planner.survival(each)[:n]) - n * price for each, n in zip(candidates, wanted, strict=True))
            usual = planner.observe_asking(requests, requests, sum(worth), depth, drafting * depth)
        drafted = sum(wanted)
        given = 0
        for request, count in zip(answers, wanted, strict=True):
            accepted = 0
            while accepted < count and dice.random() < chance:
                accepted += 1
            if count and drafting:
                planner.acceptance.judge("test", (chance if said is None else said,) * count, count, accepted)
            elif count:
                planner.acceptance.observe(request, "test", count, accepted)
            given += accepted + 1
        seconds = machine(requests + drafted) * (1 + noise * dice.random())
        spent += seconds + drafting * depth
        planner.observe_step(requests, drafted, given, seconds, usual)
        tokens += given
        late += drafted if step >= steps // 2 else 0
    plain = machine(requests) * (1 + noise / 2) / requests
    return tokens * plain / spent, late / (steps - steps // 2)


def ask(planner: Planner, answers: Sequence[Request], said: float) -> tuple[list[Candidate], int]:
    """What a drafter that takes time drafts if it is asked, and how many tokens for each."""
    rows = len(answers)
    if not planner.ready(rows) or not planner.asks(rows):
        return [], 0
    least, depth = planner.least(rows, rows), 1
    while depth < MOST and said**depth >= least:
        depth += 1
    for each in answers:
        planner.acceptance.foresee(each, "test", (said,) * depth)
    return [Candidate(each, depth, "test", (said,) * depth) for each in answers], depth


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_where_rows_are_free_good_drafts_are_as_long_as_they_may(noise: float) -> None:
    speed, drafts = run(flat, 0.9, noise=noise)
    assert drafts > 0.9 * MOST
    assert speed > 4


def test_where_rows_cost_as_much_as_tokens_nothing_is_drafted() -> None:
    for chance in (0.0, 0.5, 0.9):
        speed, drafts = run(steep, chance)
        assert speed > 0.97
        assert drafts < 0.1


@pytest.mark.parametrize("machine", [flat, half, steep])
@pytest.mark.parametrize("drafting", [0.0, 0.002])
@pytest.mark.parametrize("requests", [1, 4, 16])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_is_never_slower_than_plain_decoding_by_more_than_three_percent(
    machine: Machine, drafting: float, requests: int, noise: float
) -> None:
    for chance in (0.0, 0.3, 0.6, 0.8):
        speed, _ = run(machine, chance, requests=requests, drafting=drafting, noise=noise)
        assert speed > 0.97, (chance, speed)


def test_drafting_that_takes_longer_than_it_saves_is_left_alone() -> None:
    speed, drafts = run(flat, 0.5, drafting=0.02)
    assert speed > 0.97
    assert drafts < 0.2
    assert run(flat, 0.9, drafting=0.001)[0] > 2


def test_many_answers_at_once_get_shorter_drafts_than_one() -> None:
    alone = run(flat, 0.7)[1]
    together = run(flat, 0.7, requests=16)[1] / 16
    assert together < 0.5 * alone


def test_an_answer_that_takes_no_drafts_gets_none_and_its_neighbour_keeps_them() -> None:
    planner = Planner()
    good, bad = (Request(number, [1], SamplingParams(max_tokens=999)) for number in (1, 2))
    for rows in (2, 2, 4, 8, 16):
        planner.observe_step(2, rows - 2, rows, half(rows), 0.0)
    for _ in range(40):
        planner.acceptance.observe(good, "test", 4, 4)
        planner.acceptance.observe(bad, "test", 4, 0)
    planner.observe_step(2, 0, 2, half(2), 0.0)
    wanted = planner.plan(2, [Candidate(good, MOST, "test"), Candidate(bad, MOST, "test")])
    assert wanted[0] > 2
    assert wanted[1] == 0
    planner.acceptance.forget(good)
    planner.acceptance.forget(bad)


def test_it_comes_back_when_drafts_become_good_again() -> None:
    planner = Planner()
    assert run(flat, 0.0, planner=planner, steps=300)[1] < 1
    assert run(flat, 0.9, planner=planner, steps=1500)[1] > 0.8 * MOST


@pytest.mark.parametrize("drafting", [0.0, 0.001])
@pytest.mark.parametrize("chance", [0.2, 0.4])
def test_steps_that_are_slow_when_first_seen_are_not_believed(drafting: float, chance: float) -> None:
    """Eight answers end one by one; the first step of every size takes twice its time, as beside a busy neighbour."""
    seen: set[int] = set()

    def slow_at_first(rows: int) -> float:
        first = rows not in seen
        seen.add(rows)
        return (1 + first) * (0.0045 + 0.0014 * rows)

    planner = Planner()
    for requests in range(8, 2, -1):
        slow_at_first(requests)  # so that `run` compares with its usual time
        seen.discard(requests)
        speed, _ = run(slow_at_first, chance, requests=requests, steps=100, drafting=drafting, planner=planner)
        assert speed > 0.91, requests


@pytest.mark.parametrize("drafting", [0.0, 0.001])
@pytest.mark.parametrize("chance", [0.2, 0.4])
def test_the_first_steps_of_all_may_be_slow(drafting: float, chance: float) -> None:
    """As where a process has just started; what they lose themselves is left out."""
    planner, steps = Planner(), 0

    def slow_start(rows: int) -> float:
        nonlocal steps
        steps += 1
        return (1 + 2 * (steps < 4)) * (0.0045 + 0.0014 * rows)

    run(slow_start, chance, requests=8, steps=6, drafting=drafting, planner=planner)
    speed, _ = run(slow_start, chance, requests=8, steps=200, drafting=drafting, planner=planner)
    assert speed > 0.97


def test_a_first_plan_goes_a_little_beyond_what_was_measured() -> None:
    answers = [Request(number, [1], SamplingParams(max_tokens=999)) for number in range(8)]
    planner = Planner()
    planner.observe_step(8, 0, 8, 0.01, 0.0)
    planned = []
    for _ in range(3):
        planned.append(sum(planner.plan(8, [Candidate(each, MOST, "test") for each in answers])))
        planner.observe_step(8, planned[-1], 8 + planned[-1], 0.01, 0.0)
        planner.observe_step(8, 0, 8, 0.01, 0.0)
    assert planned == [3, 6, 10]


@pytest.mark.parametrize("requests", [16, 20])
def test_many_answers_are_drafted_for_where_it_pays(requests: int) -> None:
    assert run(lambda rows: 0.0045 + 0.0003 * rows, 0.8, requests=requests, steps=2000)[0] > 1.08


def test_a_step_in_the_costs_is_crossed_where_it_pays() -> None:
    """From eight rows to nine a step takes 1.3 times as long, and more rows no longer."""
    assert run(lambda rows: 0.01 if rows <= 8 else 0.013, 0.6, requests=8, steps=2000)[0] > 1.2


def test_drafting_that_was_slow_at_first_is_tried_again() -> None:
    planner = Planner()
    planner.observe_step(8, 0, 8, flat(8), 0.0)
    planner.observe_asking(8, 8, 0.0, 3, 0.5)  # a long prompt was caught up with
    speed, drafts = run(flat, 0.9, requests=8, drafting=0.0005, planner=planner)
    assert speed > 1.2
    assert drafts > 4


def test_a_quicker_step_is_believed_at_once_at_first_and_slowly_later() -> None:
    costs = StepCosts()
    for seconds in (0.050, 0.015):
        costs.observe(8, seconds)
    assert costs.expect(8) == 0.015
    for _ in range(50):
        costs.observe(8, 0.015)
    costs.observe(8, 0.005)
    assert costs.expect(8) > 0.012


def test_a_clock_that_stands_still_does_no_harm() -> None:
    costs = StepCosts()
    for seconds in (0.0, 0.0, 0.01, 0.0, 0.01):
        costs.observe(4, seconds)
    assert costs.expect(4) > 0


def test_a_plan_that_only_measures_stays_promising() -> None:
    planner = Planner()
    answer = Request(1, [1], SamplingParams(max_tokens=999))
    candidates = [Candidate(answer, MOST, "test")]
    assert planner.plan(1, candidates) == [0]
    assert not planner.promising
    planner.observe_step(1, 0, 1, 0.01, 0.0)
    drafted: set[bool] = set()
    for _ in range(30):
        wanted = planner.plan(1, candidates)[0]
        planner.acceptance.observe(answer, "test", wanted, wanted)
        planner.observe_step(1, wanted, 1 + wanted, 0.01, 0.0)
        assert planner.promising
        drafted.add(wanted > 0)
    assert drafted == {True, False}


def test_a_size_first_seen_costs_no_less_than_a_smaller_one_and_no_more_than_a_larger_one() -> None:
    costs = StepCosts()
    for size, seconds in ((8, 0.016), (4, 0.050), (16, 0.001)):
        costs.observe(size, seconds)
    assert costs.expect(4) == costs.expect(8) == costs.expect(16) == 0.016
    for _ in range(500):
        for size, seconds in ((8, 0.016), (4, 0.010), (16, 0.020)):
            costs.observe(size, seconds)
    assert costs.expect(4) == pytest.approx(0.010, rel=0.1)
    assert costs.expect(8) == pytest.approx(0.016, rel=0.1)
    assert costs.expect(12) == pytest.approx(0.018, rel=0.1)


def test_what_was_never_measured_is_expected_between_nothing_more_and_as_dear_as_the_rest() -> None:
    costs = StepCosts()
    assert costs.expect(3) == 0.0
    costs.observe(4, 0.010)
    assert 0.010 < costs.expect(8) < 0.020
    assert 0.0025 < costs.expect(1) < 0.010
    costs.observe(8, 1.0)
    assert costs.expect(8) == pytest.approx(0.020)  # a hundred times as long: as dear per row as four
    assert costs.expect(6) == pytest.approx(0.015)


class Counting(Planner):
    """Counts the plans that draft nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = 0

    def plan(self, rows: int, candidates: Sequence[Candidate]) -> list[int]:
        wanted = super().plan(rows, candidates)
        self.plain += not any(wanted)
        return wanted


def test_where_little_is_gained_plain_steps_are_measured_sooner() -> None:
    much, little = Counting(), Counting()
    assert run(flat, 0.95, planner=much, steps=2000)[0] > 4
    assert run(flat, 0.2, planner=little, steps=2000)[0] > 1.1
    assert much.plain < 2000 / 30
    assert little.plain > 2 * much.plain
