"""The whole engine over the GPU's runner, on a CPU with reference kernels: the same answers as the plain one, however run."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this system")

from local_engine.embedding import EmbeddingJob
from local_engine.engine import Engine
from local_engine.gpu_runner import Ahead, GpuRunner
from local_engine.request import Output, Request, SamplingParams
from local_engine.speculative.drafter import Drafter, taps_of
from local_engine.speculative.ngram import NgramDrafter
from tests.local_engine.conftest import EngineMaker
from tests.local_engine.test_engine import prompt, run_to_end, text

GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)


def on_gpu_path(plain: Engine, drafters: Sequence[Drafter] = (), *, fails_at: int | None = None) -> Engine:
    """The plain engine's weights behind the GPU's runner; `fails_at` makes that step of those in the air raise."""
    runner = GpuRunner(
        plain.runner, max_batch=plain.config.max_batch, max_context=256, max_drafts=plain.config.max_drafts,
        taps=taps_of(drafters),
    )  # fmt: skip
    engine = Engine(runner, plain.tokenizer, plain.config, drafters)
    if fails_at is not None:
        engine.ahead = FailingAhead(runner, fails_at).ahead()
    return engine


class FailingAhead(GpuRunner):
    """A GPU that breaks down while several steps are in the air."""

    def __init__(self, runner: GpuRunner, step: int) -> None:
        self.__dict__.update(runner.__dict__)
        self._step = step

    def run_ahead(self, items, steps):  # type: ignore[no-untyped-def]
        ahead = super().run_ahead(items, steps)

        class Broken(Ahead):
            def tokens(_, step: int) -> list[int]:  # noqa: N805
                if step == self._step:
                    raise RuntimeError("the device is gone")
                return ahead.tokens(step)

        return Broken(ahead._tokens, ahead._events, ahead.streams)


def answers(engine: Engine, wanted: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
    requests = [engine.new_request(*each) for each in wanted]
    for request in requests:
        engine.add(request)
    run_to_end(engine)
    return [request.answer for request in requests]


def test_greedy_answers_equal_the_plain_engines_with_steps_in_the_air(tiny_engine: EngineMaker) -> None:
    wanted = [
        (prompt(length, salt), SamplingParams(max_tokens=count, temperature=0, ignore_eos=True))
        for salt, (length, count) in enumerate([(1, 30), (5, 3), (40, 17), (17, 1), (90, 8), (3, 25)])
    ]
    plain = tiny_engine(max_batch=4, step_tokens=24)
    assert answers(on_gpu_path(plain), wanted) == answers(plain, wanted)


def test_ten_answers_take_few_steps_and_texts_are_whole(tiny_engine: EngineMaker) -> None:
    plain = tiny_engine()
    engine, stops = on_gpu_path(plain), SamplingParams(max_tokens=60, temperature=0)
    request, other = engine.new_request(prompt(9), stops), plain.new_request(prompt(9), stops)
    engine.add(request)
    plain.add(other)
    outputs = run_to_end(engine)[request.id]
    expected = run_to_end(plain)[other.id]
    assert request.answer == other.answer
    assert text(outputs) == text(expected)
    assert outputs[-1].finish == expected[-1].finish
    assert sum(output.tokens for output in outputs) == len(request.answer)
    assert all(output.accepted_drafts == output.rejected_drafts == 0 for output in outputs)


def test_seeded_answers_are_the_plain_engines_own(tiny_engine: EngineMaker) -> None:
    wanted = [(prompt(12), SamplingParams(max_tokens=25, temperature=1.0, seed=42, ignore_eos=True))]
    plain = tiny_engine()
    assert answers(on_gpu_path(plain), wanted) == answers(plain, wanted)


def test_drawn_answers_differ_from_one_another_and_end(tiny_engine: EngineMaker) -> None:
    params = SamplingParams(max_tokens=25, temperature=1.0, ignore_eos=True)
    both = answers(on_gpu_path(tiny_engine()), [(prompt(12), params)] * 2)
    assert both[0] != both[1]
    assert [len(each) for each in both] == [25, 25]


def test_drafts_verified_in_graphs_leave_greedy_answers_as_they_are(tiny_engine: EngineMaker) -> None:
    repeated = [*prompt(10), *prompt(10), *prompt(10)]
    wanted = [(repeated, GREEDY), (prompt(5), GREEDY)]
    engine = on_gpu_path(tiny_engine(max_drafts=3), [NgramDrafter()])
    requests = [engine.new_request(*each) for each in wanted]
    for request in requests:
        engine.add(request)
    outputs = [output for every in run_to_end(engine).values() for output in every]
    assert [request.answer for request in requests] == answers(tiny_engine(), wanted)
    assert sum(output.accepted_drafts + output.rejected_drafts for output in outputs) > 0


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_come_and_go_leave_nothing_behind(seed: int, tiny_engine: EngineMaker) -> None:
    plain = tiny_engine(max_batch=3, step_tokens=32, cache_tokens=160, max_context=80)  # too few blocks for three
    engine, dice = on_gpu_path(plain), random.Random(seed)
    alone = tiny_engine(max_batch=1, max_context=80)
    waiting = [
        engine.new_request(
            prompt(dice.randint(1, 40), salt), SamplingParams(dice.randint(1, 30), temperature=0, ignore_eos=True)
        )
        for salt in range(12)
    ]
    requests, aborted = list(waiting), set()
    while waiting or engine.busy:
        for _ in range(dice.randint(0, 2)):
            if waiting:
                engine.add(waiting.pop())
        engine.step()
        if dice.random() < 0.1 and engine.scheduler.running:
            request = dice.choice(engine.scheduler.running)
            engine.abort(request)
            aborted.add(request.id)
        engine.scheduler.check_integrity()
    engine.check_integrity()
    for request in requests:
        if request.id not in aborted:
            assert request.answer == alone.generate(request.tokens[: request.prompt_tokens], request.params).tokens


def test_embeddings_beside_an_answer_leave_the_recorded_graphs_and_the_answer_alone(tiny_engine: EngineMaker) -> None:
    plain, alone = tiny_engine(max_drafts=3), tiny_engine()
    texts = [prompt(20, 5), prompt(33, 6)]
    engine = on_gpu_path(plain, [NgramDrafter()])
    assert isinstance(engine.runner, GpuRunner)
    request = engine.new_request(prompt(9), GREEDY)
    engine.add(request)
    engine.step()
    graphs = engine.runner.graphs
    assert graphs is not None
    vectors = []
    for text_tokens in texts:
        job = EmbeddingJob([text_tokens])
        for _ in job.steps(engine):
            engine.step()
        vectors += job.vectors
    run_to_end(engine)
    assert engine.runner.graphs is graphs, "recording takes seconds on a GPU"
    assert request.answer == alone.generate(prompt(9), GREEDY).tokens
    expected = EmbeddingJob(texts)
    for _ in expected.steps(alone):
        pass
    torch.testing.assert_close(torch.stack(vectors), torch.stack(expected.vectors), atol=1e-5, rtol=1e-4)


def test_a_device_that_fails_with_steps_in_the_air_ends_their_requests_with_a_reply(tiny_engine: EngineMaker) -> None:
    engine = on_gpu_path(tiny_engine(), fails_at=2)
    requests: list[Request] = [engine.new_request(prompt(4, salt), GREEDY) for salt in range(2)]
    for request in requests:
        engine.add(request)
    outputs: list[Output] = []
    while engine.busy:
        outputs += engine.step()
    engine.check_integrity()
    assert [output.request.id for output in outputs if output.error is not None] == [1, 2]
    assert [len(request.answer) for request in requests] == [3, 3]  # what came back before is kept
