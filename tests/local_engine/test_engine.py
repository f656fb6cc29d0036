"""The engine steps many requests at once as if each were alone, and leaves nothing behind."""

from __future__ import annotations

import random

import pytest

from local_engine.engine import Engine
from local_engine.errors import StepFailed
from local_engine.request import Output, Request, SamplingParams
from tests.local_engine.conftest import EngineMaker

GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)


def prompt(length: int, salt: int = 0) -> list[int]:
    return [(index * 37 + salt * 11 + 3) % 300 for index in range(length)]


def run_to_end(engine: Engine) -> dict[int, list[Output]]:
    outputs: dict[int, list[Output]] = {}
    while engine.busy:
        for output in engine.step():
            outputs.setdefault(output.request.id, []).append(output)
    engine.check_integrity()
    return outputs


def text(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)


def test_greedy_answers_are_the_same_alone_and_in_a_batch(tiny_engine: EngineMaker) -> None:
    prompts = [prompt(length, salt) for salt, length in enumerate((1, 5, 40, 17, 90, 3))]
    engine = tiny_engine(max_batch=1)
    alone = [engine.generate(each, GREEDY).tokens for each in prompts]
    together = tiny_engine(max_batch=4, step_tokens=16)  # two wait, long prompts are cut
    requests = [together.new_request(each, GREEDY) for each in prompts]
    for request in requests:
        together.add(request)
    run_to_end(together)
    assert [request.answer for request in requests] == alone


def test_a_seeded_answer_is_the_same_alone_and_in_a_batch(tiny_engine: EngineMaker) -> None:
    params = SamplingParams(max_tokens=25, temperature=1.0, top_p=0.9, seed=42, ignore_eos=True)
    alone = tiny_engine().generate(prompt(12), params).tokens
    engine = tiny_engine(max_batch=3)
    other = SamplingParams(max_tokens=30, temperature=1.5, ignore_eos=True)
    ours = engine.new_request(prompt(12), params)
    for request in (engine.new_request(prompt(7), other), ours, engine.new_request(prompt(20), other)):
        engine.add(request)
    run_to_end(engine)
    assert ours.answer == alone
    assert tiny_engine().generate(prompt(12), SamplingParams(max_tokens=25, seed=43, ignore_eos=True)).tokens != alone


def test_a_request_may_join_and_leave_between_steps(tiny_engine: EngineMaker) -> None:
    expected = tiny_engine().generate(prompt(9), GREEDY).tokens
    engine = tiny_engine(max_batch=2)
    first = engine.new_request(prompt(30, 1), GREEDY)
    engine.add(first)
    for _ in range(5):
        engine.step()
    second = engine.new_request(prompt(9), GREEDY)
    engine.add(second)
    engine.step()
    engine.abort(first)
    engine.check_integrity()
    run_to_end(engine)
    assert second.answer == expected


def test_an_aborted_request_frees_its_blocks_at_once(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=1)
    running, waiting = (engine.new_request(prompt(4), GREEDY) for _ in range(2))
    engine.add(running)
    engine.add(waiting)
    engine.step()
    assert engine.blocks.used == 1
    engine.abort(running)
    engine.abort(running)  # twice is fine
    assert engine.blocks.used == 0
    engine.check_integrity()
    outputs = run_to_end(engine)
    assert running.id not in outputs
    assert outputs[waiting.id][-1].finish == "length"


def test_any_mix_of_arrivals_and_aborts_leaves_the_engine_clean(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=3, step_tokens=12)
    chance = random.Random(4)
    open_requests: list[Request] = []
    for _ in range(150):
        if chance.random() < 0.4:
            params = SamplingParams(max_tokens=chance.randint(1, 12), temperature=chance.choice([0, 1.0]), seed=1)
            request = engine.new_request(prompt(chance.randint(1, 50)), params)
            engine.add(request)
            open_requests.append(request)
        if open_requests and chance.random() < 0.15:
            engine.abort(open_requests.pop(chance.randrange(len(open_requests))))
        engine.step()
        engine.check_integrity()
    run_to_end(engine)
    assert engine.blocks.used == 0


def test_a_stop_string_ends_the_answer_before_it_wherever_tokens_break(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    whole = engine.generate(prompt(6), SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)).text
    visible = whole.replace("\ufffd", "")
    assert len(visible) > 12, "the random model says too little to test with"
    for length in (1, 2, 5):
        stop = next(whole[at : at + length] for at in range(4, len(whole)) if "\ufffd" not in whole[at : at + length])
        params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True, stop=(stop, "never said"))
        request = engine.new_request(prompt(6), params)
        engine.add(request)
        outputs = run_to_end(engine)[request.id]
        assert text(outputs) == whole[: whole.find(stop)]
        assert outputs[-1].finish == "stop"


def test_an_end_token_stops_the_answer_and_is_counted_but_not_shown(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    free = engine.generate(prompt(6), GREEDY)
    last = free.tokens[9]
    engine.tokenizer.end_ids = frozenset({last})
    ended = engine.generate(prompt(6), SamplingParams(max_tokens=20, temperature=0))
    cut = free.tokens.index(last) + 1
    assert (ended.tokens, ended.finish) == (free.tokens[:cut], "stop")
    whole = engine.tokenizer.decode(free.tokens[: cut - 1])
    assert ended.text == whole.rstrip("\ufffd"), "the end of an answer is no half character"


@pytest.mark.parametrize("room", [1, 2])
def test_the_context_is_usable_to_its_last_token(tiny_engine: EngineMaker, room: int) -> None:
    engine = tiny_engine()
    params = SamplingParams(max_tokens=room, temperature=0, ignore_eos=True)
    answer = engine.generate(prompt(engine.max_context - room), params)
    assert (len(answer.tokens), answer.finish) == (room, "length")
    with pytest.raises(ValueError, match="do not fit"):
        engine.new_request(prompt(engine.max_context - room + 1), params)


def test_a_step_that_fails_ends_its_requests_with_an_error_and_the_engine_goes_on(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_batch=2)
    outside = engine.model_config.vocab_size  # no embedding row: the step that computes it raises
    broken, waiting = engine.new_request([outside], GREEDY), engine.new_request(prompt(5), GREEDY)
    engine.add(broken)
    outputs = engine.step()
    assert [output.finish for output in outputs] == ["error"]
    assert isinstance(outputs[0].error, StepFailed)
    engine.check_integrity()
    engine.add(waiting)
    assert run_to_end(engine)[waiting.id][-1].finish == "length"


def test_a_long_answer_equals_the_same_tokens_given_as_a_prompt(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(max_context=512)
    one_by_one = engine.generate(prompt(3), SamplingParams(max_tokens=400, temperature=0, ignore_eos=True)).tokens
    again = engine.generate(
        [*prompt(3), *one_by_one[:300]], SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    )
    assert again.tokens == one_by_one[300:]


def test_bfloat16_halves_the_cache_and_still_answers(tiny_engine: EngineMaker) -> None:
    held = {}
    for dtype in ("bfloat16", "float32"):
        engine = tiny_engine(dtype=dtype)
        request = engine.new_request(prompt(10), GREEDY)
        engine.add(request)
        engine.step()
        held[dtype] = engine.blocks.used * engine.runner.pool.block_nbytes
        run_to_end(engine)
        assert len(request.answer) == 20
    assert held["float32"] == 2 * held["bfloat16"] > 0
