"""Shared and scattered blocks change nothing but the work: the same tokens with sharing, preemption and failed steps."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from local_engine.batch import SHORT_CONTEXT
from local_engine.cache_size import free_memory, plan_cache
from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.errors import CacheDoesNotFit
from local_engine.kv_cache import KVPool
from local_engine.layers.attention_reference import PlainAttention
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.metrics import EngineMetrics
from local_engine.request import Output, Request, SamplingParams
from tests.local_engine.conftest import EngineMaker

CPU = torch.device("cpu")
OPENING = [(index * 37 + 3) % 300 for index in range(70)]
GAUGES = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *(f"penstock_engine_kv_cache_{what}" for what in ("bytes", "kept_bytes", "capacity_bytes")),
)


def answer_of(length: int, **more: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": length, "temperature": 0, "ignore_eos": True, **more})


def run_to_end(engine: Engine) -> list[Output]:
    outputs = []
    while engine.busy:
        outputs += engine.step()
        engine.check_integrity()
    return outputs


def ask(engine: Engine, prompt: list[int], salt: str | None = None) -> Request:
    request = engine.new_request(prompt, answer_of(12), cache_salt=salt)
    engine.add(request)
    run_to_end(engine)
    return request


def test_scattered_blocks_give_the_logits_of_the_plain_attention(tiny_engine: EngineMaker) -> None:
    decoder, size = tiny_engine().runner.decoder, 4
    pool = KVPool(decoder.config, 32, size, torch.float32, CPU)
    tokens = torch.tensor(OPENING[:45])
    plain, start = PlainAttention(), 0
    for blocks in (random.Random(3).sample(range(32), 12), list(range(5, 17))):  # anywhere, and in a row
        pool.tensor.fill_(torch.nan)  # a slot that is read before it is written shows
        plain, start = PlainAttention(), 0
        in_a_row = all(after == before + 1 for before, after in pairwise(blocks))
        for length in (17, 1, 1, 20, 6):
            end = start + length
            slots = torch.tensor([blocks[at // size] * size + at % size for at in range(start, end)])
            span = make_span(0, length, end, blocks, in_a_row, size, CPU)
            ids, positions = tokens[start:end], torch.arange(start, end)
            with torch.inference_mode():
                paged = decoder(ids, positions, PagedAttention(pool, slots, [span]), None)
                expected = decoder(ids, positions, plain, None)
            torch.testing.assert_close(paged, expected, rtol=1e-4, atol=1e-4)
            start = end


def mixed_prompts() -> list[list[int]]:
    """Prompts that begin alike, partly alike or not at all; one twice."""
    chance = random.Random(8)
    tails = [[chance.randrange(300) for _ in range(chance.randint(1, 30))] for _ in range(9)]
    prompts = [OPENING[: chance.choice([0, 16, 33, 70])] + tail for tail in tails]
    return [*prompts, prompts[3]]


@pytest.mark.parametrize("cache_tokens", [4096, 144])
@pytest.mark.parametrize("sharing", [True, False])
def test_greedy_tokens_are_the_same_with_and_without_sharing_and_preemption(
    tiny_engine: EngineMaker, cache_tokens: int, sharing: bool
) -> None:
    alone = tiny_engine(max_batch=1, prefix_sharing=False)
    expected = [alone.generate(prompt, answer_of(44)).tokens for prompt in mixed_prompts()]
    engine = tiny_engine(max_batch=6, step_tokens=48, cache_tokens=cache_tokens, prefix_sharing=sharing)
    for turn in range(2):  # the second time everything that the cache still holds is shared
        requests = [engine.new_request(prompt, answer_of(44)) for prompt in mixed_prompts()]
        for request in requests:
            engine.add(request)
        run_to_end(engine)
        assert [request.answer for request in requests] == expected, turn
        assert any(request.cached_tokens for request in requests) == sharing
    assert bool(engine.scheduler.preemptions) == (cache_tokens < 4096), "the test is about both"


def test_answers_are_the_same_on_both_sides_of_a_short_context(tiny_engine: EngineMaker) -> None:
    prompts = [
        [salt, *(OPENING * 4)[:length]] for salt, length in enumerate((SHORT_CONTEXT - 9, SHORT_CONTEXT - 20, 8, 270))
    ]
    alone = tiny_engine(max_context=512)
    expected = [alone.generate(prompt, answer_of(30)).tokens for prompt in prompts]
    engine = tiny_engine(max_context=512, cache_tokens=1024, step_tokens=128)
    requests = [engine.new_request(prompt, answer_of(30)) for prompt in prompts]
    for request in requests:
        engine.add(request)
    seen = set()
    while engine.busy:
        step = [request for request in engine.scheduler.running if request.gap == 1]
        seen.add((sum(request.computed < SHORT_CONTEXT for request in step), len(step)))
        engine.step()
    assert [request.answer for request in requests] == expected
    assert {(3, 4), (2, 4)} <= seen, "all combinations came about"


def test_a_seeded_answer_goes_on_after_a_preemption_as_if_nothing_had_happened(tiny_engine: EngineMaker) -> None:
    params = answer_of(40, temperature=1.0, seed=5)
    expected = [tiny_engine().generate(OPENING[: 20 + each], params).tokens for each in range(3)]
    engine = tiny_engine(max_batch=3, cache_tokens=112)
    requests = [engine.new_request(OPENING[: 20 + each], params) for each in range(3)]
    for request in requests:
        engine.add(request)
    run_to_end(engine)
    assert engine.scheduler.preemptions > 0
    assert [request.answer for request in requests] == expected


def test_what_a_request_finds_in_the_cache_is_counted_and_not_computed_again(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    cold, warm = ask(engine, [*OPENING, 1]), ask(engine, [*OPENING, 2])
    again = ask(engine, [*OPENING, 1])
    next_turn = ask(engine, [*OPENING, 1, *again.answer, 5])
    counted = [each.cached_tokens for each in (cold, warm, again, next_turn)]
    assert counted == [0, 64, 64, 80], "full blocks of 16; an answer is a prefix of the next turn"
    assert again.answer == cold.answer
    metrics = EngineMetrics("tiny")
    metrics.observe_queue(engine)
    text = metrics.render().decode()
    assert 'vllm:prefix_cache_queries_total{model_name="tiny"} 297.0' in text
    assert 'vllm:prefix_cache_hits_total{model_name="tiny"} 208.0' in text
    assert 'vllm:kv_cache_usage_perc{model_name="tiny"} 0.0' in text


def test_gauges_follow_the_engine_up_and_down(tiny_engine: EngineMaker) -> None:
    engine, metrics = tiny_engine(), EngineMetrics("tiny")
    requests = [engine.new_request([*OPENING, number], answer_of(30)) for number in range(2)]
    seen = []
    for work in (lambda: engine.add(requests[0]), lambda: engine.add(requests[1]), lambda: engine.abort(requests[1])):
        work()
        for _ in range(20):  # far enough to need further blocks
            metrics.observe_step(engine, engine.step())
            shown = [metrics.registry.get_sample_value(name, {"model_name": "tiny"}) for name in GAUGES]
            blocks, pool = engine.blocks, engine.runner.pool
            expected = [len(engine.scheduler.running), len(engine.scheduler.waiting), blocks.used / blocks.blocks]
            assert shown == [*expected, blocks.used * pool.block_nbytes, blocks.kept * pool.block_nbytes, pool.nbytes]
            seen.append((shown[0], shown[3]))
    assert len(set(seen)) == 5, "each of the two needed one more block on its way"
    assert {running for running, _ in seen} == {0, 1, 2}


def test_a_salt_keeps_the_cache_to_itself(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine()
    salts = (None, "a", "b", "a", None, "")
    assert [ask(engine, OPENING, salt).cached_tokens for salt in salts] == [0, 0, 0, 64, 64, 0]


def test_a_block_of_a_failed_step_is_never_shared(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(step_tokens=48)
    expected = ask(tiny_engine(), OPENING).answer
    outside = engine.model_config.vocab_size  # no embedding row: the step that computes it raises
    requests = [engine.new_request(prompt, answer_of(12)) for prompt in (OPENING, [*OPENING[:40], outside])]
    for request in requests:
        engine.add(request)
    run_to_end(engine)
    after = ask(engine, OPENING)
    assert after.answer == expected
    assert after.cached_tokens in (0, 32, 48, 64)
    assert engine.blocks.used == 0


def test_the_least_recently_used_prefix_makes_room_first(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(cache_tokens=256)
    prompts = [[salt, *OPENING] for salt in range(6)]
    ask(engine, prompts[0])
    for prompt in prompts[1:]:
        ask(engine, prompt)
        assert ask(engine, prompts[0]).cached_tokens == 64, "used again and again"
    assert ask(engine, prompts[1]).cached_tokens == 0


def test_a_cache_smaller_than_the_context_is_the_context(tiny_engine: EngineMaker) -> None:
    engine = tiny_engine(cache_tokens=100, max_context=256)
    assert engine.max_context == 96, "whole blocks only"
    assert len(engine.generate(OPENING, answer_of(26)).tokens) == 26
    with pytest.raises(ValueError, match="do not fit"):
        engine.new_request(OPENING, answer_of(27))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_tokens": 10**12}, r"--cache-tokens 1000000000000 needs a cache of \d+ MiB \(768 bytes per token\)"),
        ({"cache_mib": 10**9}, r"--cache-mib 1000000000 needs .* MiB are free: lower --cache-tokens"),
        ({"cache_tokens": 3}, "--cache-tokens 3 is less than one block: 16 tokens take"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_with_the_numbers(
    tiny_engine: EngineMaker, options: dict[str, int], message: str
) -> None:
    with pytest.raises(CacheDoesNotFit, match=message):
        tiny_engine(**options)


def test_the_cache_has_the_size_that_was_asked_for(tiny_engine: EngineMaker) -> None:
    model = tiny_engine().model_config
    by_memory = plan_cache(EngineConfig(cache_mib=3), model, 256, torch.float32, CPU)
    by_tokens = plan_cache(EngineConfig(cache_tokens=1000), model, 256, torch.float32, CPU)
    default = plan_cache(EngineConfig(max_batch=3), model, 250, torch.float32, CPU)
    assert (by_memory.tokens, by_memory.nbytes) == (4096, 3 << 20)
    assert (by_tokens.tokens, default.tokens) == (992, 3 * 256)
    assert default.nbytes < free_memory(CPU) // 4
    with pytest.raises(ValueError, match="not both"):
        EngineConfig(cache_mib=3, cache_tokens=1000)
