"""An engine that drafts begins steps ahead while its plan drafts nothing: the same answers, and drafts come back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from local_engine.engine import Engine
from local_engine.layers.attention_reference import PlainAttention
from local_engine.request import Output, Request, SamplingParams
from local_engine.speculative.adapt import Candidate, Planner
from local_engine.speculative.drafter import NO_DRAFT, Draft, Drafter, Seen
from local_engine.speculative.ngram import NgramDrafter
from local_engine.speculative.speculator import Speculator
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.scripted_drafters import Eager, Scripted
from tests.local_engine.test_engine import prompt
from tests.local_engine.test_gpu_engine import on_gpu_path


class Whims(Eager):
    """Drafts all it can or nothing for anybody, for some plans in a row, as its dice say."""

    def __init__(self, drafter: Drafter, most: int, seed: int) -> None:
        super().__init__([drafter], most)
        self._dice = random.Random(seed)
        self._left, self._drafts_now = 0, False

    def _propose(self, able: list[Request], rows: int) -> None:
        if self._left == 0:
            self._left, self._drafts_now = self._dice.randint(1, 5), not self._drafts_now
        self._left -= 1
        if self._drafts_now:
            super()._propose(able, rows)


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)


def most_at_once(outputs: Sequence[Output]) -> int:
    """Steps that one call of `step` computed."""
    return max(Counter(output.request.id for output in outputs).values(), default=0)


@pytest.mark.parametrize("kind", ["perfect", "half", "weighed"])
@pytest.mark.parametrize("seed", range(4))
def test_answers_are_the_same_whatever_is_drafted_and_begun_ahead(
    seed: int, kind: str, tiny_engine: EngineMaker
) -> None:
    dice, alone = random.Random(seed), tiny_engine(max_batch=1, max_context=80)
    wanted = [(prompt(dice.randint(1, 40), salt), greedy(dice.randint(5, 38))) for salt in range(12)]
    answers = {tuple(tokens): alone.generate(tokens, params).tokens for tokens, params in wanted}
    plain = tiny_engine(max_batch=3, step_tokens=32, cache_tokens=160, max_context=80, max_drafts=4)
    engine = on_gpu_path(plain, [Scripted(answers, kind)])
    engine.speculator = Whims(Scripted(answers, kind), 4, seed)
    waiting = [engine.new_request(*each) for each in wanted]
    requests, aborted, ahead, accepted = list(waiting), set(), 0, 0
    while waiting or engine.busy:
        if waiting and dice.random() < 0.15:
            engine.add(waiting.pop())
        outputs = engine.step()
        ahead = max(ahead, most_at_once(outputs))
        accepted += sum(output.accepted_drafts for output in outputs)
        if dice.random() < 0.03 and engine.scheduler.running:
            request = dice.choice(engine.scheduler.running)
            engine.abort(request)
            aborted.add(request.id)
        engine.check_integrity()
    for request in requests:
        if request.id not in aborted:
            assert request.answer == answers[tuple(request.tokens[: request.prompt_tokens])]
    assert ahead > 1, "nothing was begun ahead"
    assert accepted > 0, "nothing was drafted"


class Late(Scripted):
    """Finds nothing for the first 30 tokens of an answer."""

    def _propose(self, request: Request, most: int) -> Draft:
        return NO_DRAFT if request.answered < 30 else super()._propose(request, most)


def test_steps_ahead_double_while_nothing_is_drafted_and_end_with_the_first_draft(tiny_engine: EngineMaker) -> None:
    answer = tiny_engine().generate(prompt(7), greedy(60)).tokens
    drafter = Late({tuple(prompt(7)): answer}, "perfect")
    engine = on_gpu_path(tiny_engine(max_drafts=3), [drafter])
    engine.speculator = Eager([drafter], 3)
    request = engine.new_request(prompt(7), greedy(60))
    engine.add(request)
    calls = [(sum(output.accepted_drafts for output in outputs), len(outputs)) for outputs in _steps(engine)]
    assert request.answer == answer
    assert calls[:6] == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 8), (0, 8)], "the prompt, then 30 tokens"
    assert calls[6:] == [(3, 1)] * 7 + [(0, 1)]


def _steps(engine: Engine) -> Iterator[list[Output]]:
    while engine.busy:
        yield engine.step()


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def test_the_planner_itself_lets_an_answer_run_ahead_where_lookup_finds_nothing(tiny_engine: EngineMaker) -> None:
    """The default of `serve`: prompt lookup. Ten answers, no draft worth a row: most tokens come of steps begun ahead."""
    wanted = [(prompt(length, 2 * length), greedy(40)) for length in range(3, 11)]
    engine = on_gpu_path(tiny_engine(max_batch=8, max_drafts=3), [NgramDrafter()])
    engine.speculator = Speculator([NgramDrafter()], 3, timer=Clock())
    requests = [engine.new_request(*each) for each in wanted]
    for request in requests:
        engine.add(request)
    sizes = [most_at_once(outputs) for outputs in _steps(engine)]
    assert [request.answer for request in requests] == [tiny_engine().generate(*each).tokens for each in wanted]
    assert sum(size for size in sizes if size > 1) > sum(sizes) / 2
    assert max(sizes) == 8


class Watching:
    """Drafts nothing, keeps what it was shown last."""

    costly = False
    kind = "watching"

    def __init__(self, taps: tuple[int, ...]) -> None:
        self.taps = taps
        self.seen: dict[int, Seen] = {}

    def propose(self, requests: Sequence[Request], wanted: Sequence[int]) -> list[Draft]:
        return [NO_DRAFT] * len(requests)

    def observe(self, seen: Sequence[Seen]) -> None:
        self.seen |= {each.request.id: each for each in seen}

    def forget(self, request: Request) -> None:
        self.seen.pop(request.id, None)


def test_a_drafter_that_reads_streams_has_the_newest_after_steps_ahead(tiny_engine: EngineMaker) -> None:
    plain = tiny_engine()
    watching = Watching((plain.model_config.layers - 1,))
    engine = on_gpu_path(plain, [watching])
    for salt in range(3):
        engine.add(engine.new_request(prompt(5 + salt, salt), greedy(20 + 9 * salt)))
    looked = 0
    for outputs in _steps(engine):
        for seen in watching.seen.values() if most_at_once(outputs) > 1 else ():
            tokens = torch.tensor(seen.request.tokens[:-1])
            tapped: dict[int, torch.Tensor] = {}
            plain.runner.decoder.hidden(tokens, torch.arange(len(tokens)), PlainAttention(), watching.taps, tapped)
            assert seen.position == len(tokens) - 1
            torch.testing.assert_close(seen.stream, tapped[watching.taps[0]][-1], atol=1e-4, rtol=1e-4)
            looked += 1
    assert looked > 6


def test_of_a_long_prompt_s_streams_only_what_is_needed_is_kept(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    watching = Watching((engine.model_config.layers - 1,))
    engine.speculator = Speculator([watching], 3)
    for salt in range(2):
        engine.add(engine.new_request(prompt(60, salt), greedy(9)))
    looked = 0
    for _ in _steps(engine):
        for seen in watching.seen.values():
            looked += 1
            assert seen.streams.untyped_storage().nbytes() <= 8 * 2 * seen.stream.nbytes
            assert seen.position == len(seen.request.tokens) - 2
    assert looked >= 16


@pytest.mark.parametrize(("answers", "share"), [(1, 1.0), (8, 1 / 3)])
def test_a_plan_that_drafts_nothing_is_kept_the_longer_the_more_answers_run(
    tiny_engine: EngineMaker, answers: int, share: float
) -> None:
    class Unwilling(Planner):
        calls = 0

        def plan(self, rows: int, candidates: Sequence[Candidate]) -> list[int]:
            self.calls += 1
            return [0] * len(candidates)

    wanted = [(prompt(length, 2 * length), greedy(40)) for length in range(3, 3 + answers)]
    drafter = Scripted(
        {tuple(tokens): tiny_engine().generate(tokens, params).tokens for tokens, params in wanted}, "perfect"
    )
    engine = tiny_engine(max_batch=8, max_drafts=3)
    engine.speculator = Speculator([drafter], 3)
    engine.speculator.planner = planner = Unwilling()
    for each in wanted:
        engine.add(engine.new_request(*each))
    steps = sum(1 for _ in _steps(engine))
    assert planner.calls == pytest.approx(steps * share, abs=6)
