"""The scheduler's promises, for any mix of arrivals and aborts: budget, slots, order, and that every request ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Scheduler


def request(number: int, prompt: int, answer: int) -> Request:
    return Request(number, [0] * prompt, SamplingParams(max_tokens=answer))


def advance(scheduler: Scheduler) -> list[Request]:
    """Do what the engine does with a step: compute, append a token where the gap closed, end what is complete."""
    ended = []
    for chunk in scheduler.schedule():
        chunk.request.computed += chunk.length
        if chunk.request.gap == 0:
            chunk.request.tokens.append(0)
            if len(chunk.request.answer) == chunk.request.params.max_tokens:
                scheduler.remove(chunk.request)
                ended.append(chunk.request)
    return ended


@given(
    shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 8), st.integers(0, 20)), max_size=12),
    aborts=st.dictionaries(st.integers(0, 25), st.integers(0, 11), max_size=4),
    max_batch=st.integers(1, 4),
    step_tokens=st.integers(4, 20),
)
def test_every_request_ends_within_budget_and_slots(
    shapes: list[tuple[int, int, int]], aborts: dict[int, int], max_batch: int, step_tokens: int
) -> None:
    scheduler = Scheduler(max_batch, step_tokens)
    requests = [request(number, prompt, answer) for number, (prompt, answer, _) in enumerate(shapes)]
    gone: set[int] = set()
    step = 0
    while len(gone) < len(requests):
        for candidate, (_, _, arrival) in zip(requests, shapes, strict=True):
            if arrival == step:
                scheduler.add(candidate)
        victim = aborts.get(step)
        if victim is not None and victim < len(requests) and shapes[victim][2] <= step and victim not in gone:
            scheduler.remove(requests[victim])
            gone.add(victim)
        lengths = [chunk.length for chunk in scheduler.schedule()]
        assert sum(lengths) <= step_tokens
        assert all(length > 0 for length in lengths)
        assert bool(lengths) == bool(scheduler.running)
        gone |= {ended.id for ended in advance(scheduler)}
        scheduler.check_integrity()
        step += 1
        assert step < 3000, "a request never ends"
    assert not scheduler.running
    assert not scheduler.waiting
    assert sorted(scheduler.free_slots) == list(range(max_batch))


def test_running_answers_go_before_a_long_prompt_and_the_prompt_gets_the_rest() -> None:
    scheduler = Scheduler(max_batch=3, step_tokens=10)
    first, second, long = request(1, 1, 9), request(2, 1, 9), request(3, 100, 1)
    for each in (long, first, second):
        scheduler.add(each)
    assert [(chunk.request.id, chunk.length) for chunk in scheduler.schedule()] == [(1, 1), (2, 1), (3, 8)]
    advance(scheduler)
    assert long.computed == 8


def test_requests_start_in_the_order_they_came() -> None:
    scheduler = Scheduler(max_batch=1, step_tokens=8)
    for number in range(4):
        scheduler.add(request(number, 3, 2))
    ended = []
    while len(ended) < 4:
        ended += [each.id for each in advance(scheduler)]
    assert ended == [0, 1, 2, 3]
