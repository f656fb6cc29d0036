"""The scheduler's rules one at a time; tests/properties/test_scheduler_properties.py has any mix of them."""

from __future__ import annotations

from typing import Any

import pytest

from local_engine.block_manager import BlockManager
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import AGEING_SECONDS, NeverFits, Scheduler, Step


def make(max_batch: int, step_tokens: int, blocks: int = 100, block_size: int = 4) -> Scheduler:
    return Scheduler(max_batch, step_tokens, BlockManager(blocks, block_size))


def request(number: int, prompt: int | list[int], answer: int, **more: Any) -> Request:
    tokens = [1000 * number + index for index in range(prompt)] if isinstance(prompt, int) else prompt
    return Request(number, tokens, SamplingParams(max_tokens=answer), **more)


def advance(scheduler: Scheduler, now: float = 0.0) -> Step:
    """Do what the engine does with a step: compute, append a token where the gap closed, end what is complete."""
    step = scheduler.schedule(now)
    scheduler.commit(step.chunks)
    for chunk in step.chunks:
        if chunk.closes_gap:
            chunk.request.tokens.append(7)
            if len(chunk.request.answer) == chunk.request.params.max_tokens:
                scheduler.remove(chunk.request)
    scheduler.check_integrity()
    return step


def lengths(step: Step) -> list[tuple[int, int]]:
    return [(chunk.request.id, chunk.length) for chunk in step.chunks]


def test_the_page_about_the_loop_shows_what_really_happens() -> None:
    scheduler = make(max_batch=2, step_tokens=8)
    scheduler.add(request(1, 3, 4))
    assert lengths(advance(scheduler)) == [(1, 3)]
    scheduler.add(request(2, 12, 9))
    scheduler.add(request(3, 4, 9))
    assert [lengths(advance(scheduler)) for _ in range(4)] == [
        [(1, 1), (2, 7)],
        [(1, 1), (2, 5)],
        [(1, 1), (2, 1)],
        [(2, 1), (3, 4)],
    ]


def test_running_answers_go_before_a_long_prompt_and_the_prompt_gets_the_rest() -> None:
    scheduler = make(max_batch=3, step_tokens=10)
    short, other, long = request(1, 4, 9), request(2, 4, 9), request(3, 100, 1)
    scheduler.add(short)
    scheduler.add(other)
    advance(scheduler)
    scheduler.add(long)
    assert lengths(advance(scheduler)) == [(1, 1), (2, 1), (3, 8)]
    assert long.computed == 8


def test_requests_start_in_the_order_they_came() -> None:
    scheduler = make(max_batch=1, step_tokens=8)
    for number in range(4):
        scheduler.add(request(number, 3, 2))
    started = [chunk.request.id for _ in range(8) for chunk in advance(scheduler).chunks if chunk.start == 0]
    assert started == [0, 1, 2, 3]


def test_an_urgent_request_overtakes_but_only_those_that_have_not_waited_long() -> None:
    scheduler = make(max_batch=1, step_tokens=8)
    scheduler.add(request(1, 3, 1, arrived=0.0))
    scheduler.add(request(2, 3, 1, arrived=5.0))
    scheduler.add(request(3, 3, 1, arrived=6.0, priority=-1))
    scheduler.add(request(4, 3, 1, arrived=4.0 + 2 * AGEING_SECONDS, priority=-1))
    started = [advance(scheduler).chunks[0].request.id for _ in range(4)]
    assert started == [3, 1, 2, 4], "2 waited longer than one level of priority is worth"


def test_without_blocks_the_last_in_line_gives_its_own_back_and_is_computed_again() -> None:
    scheduler = make(max_batch=2, step_tokens=20, blocks=5)
    first, second = request(1, 8, 6), request(2, 6, 6)
    scheduler.add(first)
    scheduler.add(second)
    assert lengths(advance(scheduler)) == [(1, 8), (2, 6)]  # all five blocks: 2 + 1 spare, then 2
    steps = [advance(scheduler) for _ in range(3)]
    assert [step.preempted for step in steps] == [[], [], [second]]
    assert (second.computed, second.table) == (0, None)
    while scheduler.running or scheduler.waiting:
        advance(scheduler)
    assert (len(first.answer), len(second.answer)) == (6, 6)
    assert first.preemptions == 0
    assert second.preemptions == scheduler.preemptions == 1


def test_a_request_larger_than_the_whole_cache_is_refused_at_once_with_the_numbers() -> None:
    scheduler = make(max_batch=2, step_tokens=8, blocks=3)
    scheduler.add(request(1, 10, 3))  # the last token of an answer is never read: 12 tokens, 3 blocks
    with pytest.raises(NeverFits, match="may need 13 tokens of cache, 4 blocks of 4; the whole cache has 3"):
        scheduler.add(request(2, 10, 4))
    assert len(scheduler.waiting) == 1


def test_a_deadline_ends_a_request_whether_it_runs_or_waits() -> None:
    scheduler = make(max_batch=1, step_tokens=8)
    runs, waits, stays = request(1, 4, 9, deadline=2.0), request(2, 4, 9, deadline=2.0), request(3, 4, 9, deadline=9.0)
    for each in (runs, waits, stays):
        scheduler.add(each)
    assert advance(scheduler, now=1.9).expired == []
    step = advance(scheduler, now=2.0)
    assert step.expired == [runs, waits]
    assert lengths(step) == [(3, 4)]


def test_two_long_prompts_that_begin_alike_are_computed_once_even_when_they_arrive_together() -> None:
    scheduler = make(max_batch=2, step_tokens=8)
    shared = list(range(24))
    first, second = request(1, [*shared, 1, 2], 3), request(2, [*shared, 3, 4], 3)
    scheduler.add(first)
    scheduler.add(second)
    computed = 0
    while first.gap > 1 or second.gap > 1:
        computed += sum(chunk.length for chunk in advance(scheduler).chunks)
    assert second.cached_tokens == 24
    assert computed <= 26 + 2 + 2, "26 for the first, 2 for the second, and a decoded token"


def test_choices_of_one_prompt_share_it_in_the_step_that_computes_it() -> None:
    scheduler = make(max_batch=3, step_tokens=40)
    prompt = list(range(14))
    for number in range(3):
        scheduler.add(request(number, list(prompt), 2))
    assert lengths(advance(scheduler)) == [(0, 14), (1, 2), (2, 2)]
    assert scheduler.blocks.used == 3 + 3  # three full ones shared, one partial each


def test_drafts_use_what_is_left_and_never_cost_anybody_a_token_or_a_block() -> None:
    scheduler = make(max_batch=2, step_tokens=6, blocks=4)
    first, second = request(1, 3, 9), request(2, 3, 4)
    scheduler.add(first)
    scheduler.add(second)
    advance(scheduler)
    first.drafts, second.drafts = [1, 2, 3, 4, 5, 6], [1, 2]
    chunks = scheduler.schedule(0.0).chunks
    assert [(chunk.length, chunk.drafts) for chunk in chunks] == [(5, 4), (1, 0)]
    assert all(chunk.closes_gap for chunk in chunks)
    scheduler.commit(chunks)
    assert (first.computed, second.computed) == (4, 4)
    scheduler.check_integrity()


def test_a_block_that_rejected_drafts_held_is_there_for_others_in_the_next_step() -> None:
    scheduler = make(max_batch=2, step_tokens=20, blocks=4)
    first, second = request(1, 4, 9), request(2, 4, 4)
    scheduler.add(first)
    advance(scheduler)
    first.drafts = [1, 2, 3, 4, 5, 6, 7]
    chunks = scheduler.schedule(0.0).chunks
    assert [(chunk.length, chunk.drafts) for chunk in chunks] == [(8, 7)]
    assert scheduler.blocks.used == 3
    scheduler.commit(chunks)  # all rejected
    first.tokens.append(7)
    first.drafts = [1, 2, 3, 4, 5, 6, 7]
    scheduler.add(second)
    chunks = scheduler.schedule(0.0).chunks
    assert [(chunk.request.id, chunk.length) for chunk in chunks] == [(1, 7), (2, 4)], (
        "six drafts fit the last free block"
    )
    scheduler.commit(chunks)
    scheduler.check_integrity()


def test_accepted_drafts_fill_blocks_that_others_may_share_and_rejected_ones_do_not() -> None:
    scheduler = make(max_batch=1, step_tokens=40)
    first = request(1, 3, 12)
    scheduler.add(first)
    advance(scheduler)
    first.drafts = [10, 11, 12, 13, 14, 15, 16, 17]
    scheduler.commit(scheduler.schedule(0.0).chunks)
    first.tokens += [10, 11, 12, 99]  # 8 known: 1000 1001 1002 7 | 10 11 12 99, the last one not computed
    scheduler.accept(first, 3)
    assert first.computed == 7
    first.drafts = []
    scheduler.remove(first)
    for follows, shared in ((99, 4), (13, 4)):
        again = request(2, [1000, 1001, 1002, 7, 10, 11, 12, follows, 5], 1)
        scheduler.add(again)
        advance(scheduler)
        assert again.cached_tokens == shared
