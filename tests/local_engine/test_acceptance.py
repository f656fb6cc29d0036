"""What a drafter says of its tokens is believed as far as it proves right, and it is asked while that pays."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from local_engine.request import Request, SamplingParams
from local_engine.speculative.acceptance import Acceptance
from local_engine.speculative.adapt import Candidate, Planner
from local_engine.speculative.asking import Asking
from local_engine.speculative.drafter import NO_DRAFT, Draft, Seen
from local_engine.speculative.speculator import Speculator
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.scripted_drafters import Scripted
from tests.local_engine.test_adapt import Machine, flat, half, run, steep
from tests.local_engine.test_speculation import prompt

A, B = (Request(number, [1], SamplingParams(max_tokens=999)) for number in (1, 2))


def measured() -> Planner:
    """The machine of the example in docs/engine.md: ten milliseconds for two rows, 0.8 more for each further one."""
    planner = Planner()
    for _ in range(300):
        for rows in (2, 3, 4, 6, 10):
            planner.observe_step(2, rows - 2, rows, 0.010 + 0.0008 * (rows - 2), 0.0)
    planner.observe_step(2, 0, 2, 0.010, 0.0)
    return planner


def test_the_worked_example_of_the_documentation() -> None:
    planner = measured()
    candidates = [Candidate(A, 2, "head", (0.9, 0.5)), Candidate(B, 1, "head", (0.2,))]
    assert planner.plan(2, candidates) == [2, 0]
    assert planner.price(2) == pytest.approx(0.16, abs=0.01)


def test_tokens_are_computed_by_what_their_drafter_says_of_them_and_not_by_their_place() -> None:
    planner = measured()
    unsure = Candidate(A, 7, "head", (0.05,) * 7)
    sure = Candidate(B, 7, "head", (0.97,) * 7)
    for _ in range(50):
        planner.acceptance.foresee(A, "head", (0.05,) * 7)
    assert planner.plan(2, [unsure, sure]) == [0, 7]


def test_a_drafter_that_is_too_sure_is_believed_less_and_one_that_is_too_shy_more() -> None:
    dice = random.Random(1)
    for said, kept in ((0.9, 0.45), (0.3, 0.6)):
        acceptance = Acceptance()
        assert acceptance.believed("head", [said]) == [said]
        for _ in range(600):
            acceptance.judge("head", (said, said), 1, int(dice.random() < kept))
        assert acceptance.believed("head", [said, said])[0] == pytest.approx(kept, rel=0.2)
        assert acceptance.believed("other", [said]) == [said]
    assert acceptance.believed("head", [1.0])[0] < 1


def test_what_is_to_be_expected_follows_what_was_said_and_comes_back_without_being_computed() -> None:
    acceptance = Acceptance()
    for _ in range(60):
        acceptance.foresee(A, "head", (0.05, 0.5))
    low = acceptance.survival(A, "head", 2)
    assert low[0] == pytest.approx(0.05, abs=0.02)
    assert low[1] < 0.03
    for _ in range(60):
        acceptance.foresee(A, "head", (0.9, 0.5))
    high = acceptance.survival(A, "head", 2)
    assert high[0] > 0.7
    assert acceptance.survival(B, "head", 1)[0] == pytest.approx(0.9, abs=0.1), (
        "another request's, before its own is known"
    )
    acceptance.forget(A)
    assert acceptance.survival(A, "head", 1) == acceptance.survival(B, "head", 1)


def test_a_drafter_is_asked_while_it_pays_and_tried_again_when_it_does_not() -> None:
    asking = Asking()
    for _ in range(40):
        asking.observe(gain=0.02, depth=1, cost=0.06)
    assert not asking.pays
    tries = [step for step in range(1000) if asking.probes.due()]
    assert tries[:4] == [15, 31, 63, 127]
    assert max(b - a for a, b in pairwise(tries)) == 128
    for _ in range(40):
        asking.observe(gain=0.2, depth=1, cost=0.06)
    assert asking.pays


@pytest.mark.parametrize("machine", [flat, half, steep])
@pytest.mark.parametrize("requests", [1, 4, 16])
@pytest.mark.parametrize(("chance", "said"), [(0.0, 0.9), (0.3, 0.9), (0.3, 0.6), (0.6, 0.3)])
def test_a_drafter_that_is_too_sure_or_too_shy_costs_no_more(
    machine: Machine, requests: int, chance: float, said: float
) -> None:
    assert run(machine, chance, requests=requests, drafting=0.001, said=said)[0] > 0.97


def test_one_slow_draft_is_not_what_drafting_takes() -> None:
    asking = Asking()
    for cost in (5.0, 0.04, 0.04, 0.04, 0.04, 0.04):
        asking.observe(gain=0.1, depth=2, cost=cost)
    assert asking.pays
    assert asking.observe(gain=0.1, depth=2, cost=3.0) < 0.15
    for _ in range(60):
        asking.observe(gain=0.1, depth=2, cost=0.04)
    assert asking.per_token == pytest.approx(0.02, rel=0.2)


def test_many_requests_tell_sooner_that_drafts_bring_nothing() -> None:
    def asked(requests: int) -> int:
        asking = Asking()
        while asking.pays:
            asking.observe(gain=0.0, depth=2, cost=0.06, requests=requests)
        return asking.asked

    alone, four, eight, many = (asked(requests) for requests in (1, 4, 8, 64))
    assert alone > 2 * four
    assert four >= eight >= many > 1, "one bad step is not enough however many are in it"


def test_no_drafts_say_nothing_of_what_drafting_takes_or_brings() -> None:
    """A prompt is caught up with, or the drafter has no room for the request."""
    asking = Asking()
    for cost in (5.0, 1e-6) * 20:
        assert asking.observe(gain=0.0, depth=0, cost=cost) == 0.0
    assert asking == Asking()


class Dear:
    """A drafter whose every draft takes as long as the clock is told, and is as good as it says."""

    taps: tuple[int, ...] = ()
    costly = True
    kind = "dear"

    def __init__(self, answer: list[int], right: bool, clock: list[float], seconds: float) -> None:
        self._answer, self._right, self._clock, self._seconds = answer, right, clock, seconds
        self.asked = 0

    def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
        self.asked += 1
        self._clock[0] += self._seconds
        drafts = []
        for request, most in zip(requests, wanted, strict=True):
            tokens = self._answer[request.answered :][:most]
            if self._right:
                drafts.append(Draft(tuple(tokens), None, self.kind, (0.95,) * len(tokens)))
            else:
                drafts.append(Draft((tokens[0] ^ 1,), None, self.kind, (0.01,)) if tokens else NO_DRAFT)
        return drafts

    def observe(self, seen: Sequence[Seen]) -> None:
        raise AssertionError("it taps nothing")

    def forget(self, request: Request) -> None:
        pass


@pytest.mark.parametrize("right", [True, False])
def test_the_engine_asks_a_dear_drafter_only_while_it_brings_something(tiny_engine: EngineMaker, right: bool) -> None:
    """A step takes ten milliseconds on the test's clock, whatever its rows, and a draft two."""
    params = SamplingParams(max_tokens=200, temperature=0, ignore_eos=True)
    answer = tiny_engine(max_context=256).generate(prompt(8), params).tokens
    clock = [0.0]
    drafter = Dear(answer, right, clock, 0.002)
    engine = tiny_engine(max_context=256, max_drafts=5)
    engine.speculator = speculator = Speculator([drafter], 5, timer=lambda: clock[0])
    run, steps = engine.runner.run, 0

    def computed(*arguments: object) -> object:
        nonlocal steps
        steps += 1
        clock[0] += 0.010
        return run(*arguments)  # type: ignore[arg-type]

    engine.runner.run = computed  # type: ignore[method-assign, assignment]
    assert engine.generate(prompt(8), params).tokens == answer
    if right:
        assert steps < 60
        assert speculator.counts.accepted == speculator.counts.tokens > 130
    else:
        assert steps == 200
        assert drafter.asked < 12, "0.2 plain steps each, and two percent of them may be lost"


def test_the_better_of_two_drafts_is_taken(tiny_engine: EngineMaker) -> None:
    params = SamplingParams(max_tokens=150, temperature=0, ignore_eos=True)
    answer = tiny_engine(max_context=256).generate(prompt(8), params).tokens
    engine = tiny_engine(max_context=256, max_drafts=5)
    junk, clock = Scripted({tuple(prompt(8)): answer}, "junk"), [0.0]
    engine.speculator = speculator = Speculator([junk, Dear(answer, True, clock, 0.0)], 5, timer=lambda: tick(clock))
    assert engine.generate(prompt(8), params).tokens == answer
    assert speculator.counts.accepted > 0.9 * speculator.counts.tokens > 60


def tick(clock: list[float]) -> float:
    """A millisecond has passed."""
    clock[0] += 0.001
    return clock[0]


def test_drawn_drafts_are_as_long_as_is_known_before_they_are_drawn(tiny_engine: EngineMaker) -> None:
    wanted: dict[float, set[int]] = {0.0: set(), 0.9: set()}

    class Recording(Dear):
        def propose(self, requests: Sequence[Request], most: Sequence[int], least: float = 0.0) -> list[Draft]:
            wanted[requests[0].params.temperature] |= set(most)
            return [Draft((0,) * each, None, self.kind) for each in most]

    for temperature in wanted:
        engine = tiny_engine(max_context=256, max_drafts=5)
        clock = [0.0]
        engine.speculator = Speculator([Recording([], False, clock, 0.0)], 5, timer=lambda clock=clock: tick(clock))
        engine.generate(prompt(8), SamplingParams(max_tokens=100, temperature=temperature, ignore_eos=True))
    assert 5 in wanted[0.0]
    assert min(wanted[0.9]) < 5, "little of it is kept, so little is drawn"


def test_a_drafter_that_raises_is_not_charged_for_it(tiny_engine: EngineMaker) -> None:
    class Stalling(Dear):
        def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
            super().propose(requests, wanted, least)
            if self.asked == 1:
                raise RuntimeError("no idea")
            return super().propose(requests, wanted, least)

    params = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    answer = tiny_engine(max_context=256).generate(prompt(8), params).tokens
    clock = [0.0]
    drafter = Stalling(answer, True, clock, 5.0)
    engine = tiny_engine(max_context=256, max_drafts=5)
    engine.speculator = speculator = Speculator([drafter], 5, timer=lambda: tick(clock))
    request = engine.new_request(prompt(8), params)
    engine.add(request)
    while not drafter.asked:
        engine.step()
    assert speculator.planner.ready(1)
    engine.abort(request)


def test_a_token_without_a_chance_ends_what_is_believed() -> None:
    acceptance = Acceptance()
    acceptance.judge("head", (0.0, 0.5), 2, 0)
    assert acceptance.believed("head", [0.0, 0.5]) == [0.0, 0.0]
    assert acceptance.believed("head", [0.5])[0] == pytest.approx(0.5, rel=0.1)
