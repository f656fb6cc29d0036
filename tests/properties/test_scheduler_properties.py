"""The scheduler's promises for any mix of arrivals, aborts, priorities, deadlines, drafts and tight caches."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from local_engine.block_manager import BlockManager
from local_engine.request import Request, SamplingParams
from local_engine.scheduler import Scheduler, Step, place_in_line

SIZE = 4


@dataclass(frozen=True)
class Arrival:
    """A request that comes in a certain step; `prefix` says which of two openings its prompt has."""

    step: int
    prompt: int
    answer: int
    prefix: int
    salt: str | None
    priority: int
    patience: int | None
    drafts: int
    abort: int | None

    def request(self, number: int) -> Request:
        tokens = [self.prefix * 1000 + index for index in range(self.prompt)]
        return Request(
            number,
            tokens,
            SamplingParams(max_tokens=self.answer),
            self.salt,
            self.priority,
            deadline=None if self.patience is None else float(self.step + self.patience),
            arrived=float(self.step),
        )


ARRIVALS = st.builds(
    Arrival,
    step=st.integers(0, 15),
    prompt=st.integers(1, 40),
    answer=st.integers(1, 10),
    prefix=st.integers(0, 1),
    salt=st.sampled_from([None, "a"]),
    priority=st.integers(-2, 2),
    patience=st.none() | st.integers(1, 40),
    drafts=st.integers(0, 5),
    abort=st.none() | st.integers(0, 30),
)


def check_step(scheduler: Scheduler, step: Step) -> None:
    """Budget, one chunk per request, just the blocks it needs, and no step without work while there is some."""
    assert sum(chunk.length for chunk in step.chunks) <= scheduler.step_tokens, "the budget is exceeded"
    assert all(chunk.length > chunk.drafts >= 0 for chunk in step.chunks)
    assert len({chunk.request.id for chunk in step.chunks}) == len(step.chunks), "a request has two chunks"
    assert bool(step.chunks) == bool(scheduler.running) >= bool(scheduler.waiting), "work is left and nothing is done"
    for chunk in step.chunks:
        table = chunk.request.table
        assert table is not None
        wanted = len(chunk.request.tokens) + chunk.drafts
        assert len(table.blocks) == scheduler.blocks.needed(wanted), "room for earlier drafts was not given back"
        written = {table.blocks[at // SIZE] for at in range(chunk.start, chunk.start + chunk.length)}
        others = [other.request for other in step.chunks if other.request is not chunk.request]
        for other in others:
            assert other.table is not None
            unread = other.table.blocks[other.computed // SIZE :]
            assert written.isdisjoint(unread), "two requests write one block"


def accept(scheduler: Scheduler, step: Step, data: st.DataObject) -> set[int]:
    """Tokens for those whose gap closed, some drafts accepted; the ids of those that ended by it."""
    ended = set()
    for chunk in step.chunks:
        if not chunk.closes_gap:
            continue
        request = chunk.request
        accepted = data.draw(st.integers(0, chunk.drafts)) if chunk.drafts else 0
        request.tokens += [0] * accepted + [1]
        scheduler.accept(request, accepted)
        request.drafts = []
        if len(request.answer) >= request.params.max_tokens:
            scheduler.remove(request)
            ended.add(request.id)
    return ended


def twin(scheduler: Scheduler) -> Scheduler:
    """A copy in the same state whose requests have no drafts."""
    copied = copy.deepcopy(scheduler)
    for request in (*copied.running, *copied.waiting):
        request.drafts = []
    return copied


def shape(step: Step) -> tuple[object, ...]:
    """Who computes what, drafts left out, and who lost their place."""
    chunks = [(chunk.request.id, chunk.start, chunk.length - chunk.drafts) for chunk in step.chunks]
    return chunks, [each.id for each in step.preempted], [each.id for each in step.expired]


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=10),
    max_batch=st.integers(1, 4),
    more_budget=st.integers(0, 20),
    spare_blocks=st.integers(0, 12),
    data=st.data(),
)
def test_every_request_ends_within_budget_and_blocks(
    arrivals: list[Arrival], max_batch: int, more_budget: int, spare_blocks: int, data: st.DataObject
) -> None:
    largest = max(-(-(each.prompt + each.answer - 1) // SIZE) for each in arrivals)
    blocks = BlockManager(largest + spare_blocks, SIZE)
    scheduler = Scheduler(max_batch, max_batch + more_budget, blocks)
    requests = [each.request(number) for number, each in enumerate(arrivals)]
    open_ones: set[int] = set()
    arrived = now = 0
    while arrived < len(requests) or open_ones:
        for request, each in zip(requests, arrivals, strict=True):
            if each.step == now:
                scheduler.add(request)
                open_ones.add(request.id)
                arrived += 1
            if each.abort == now and request.id in open_ones:
                scheduler.remove(request)
                open_ones.discard(request.id)
        for request in scheduler.running:
            if request.gap == 1 and request.answer:
                request.drafts = [0] * min(
                    arrivals[request.id].drafts, request.params.max_tokens - len(request.answer) - 1
                )
        first_in_line = min(scheduler.running, key=place_in_line, default=None)
        before = None if first_in_line is None else first_in_line.computed
        without = twin(scheduler).schedule(float(now))
        step = scheduler.schedule(float(now))
        assert shape(step) == shape(without), "drafts changed what a step does for others"
        open_ones -= {request.id for request in step.expired}

        check_step(scheduler, step)
        if step.chunks and data.draw(st.integers(0, 30)) == 0:  # the step raised: its requests end with an error
            scheduler.discard(step.chunks)
            for chunk in step.chunks:
                scheduler.remove(chunk.request)
                open_ones.discard(chunk.request.id)
            scheduler.check_integrity()
            now += 1
            continue
        scheduler.commit(step.chunks)
        if first_in_line is not None and first_in_line.id in open_ones:
            assert first_in_line.computed > (before or 0), "the first in line stands still"
        open_ones -= accept(scheduler, step, data)
        scheduler.check_integrity()
        now += 1
        assert now < 3000, "a request never ends"
    assert not scheduler.running
    assert not scheduler.waiting
    assert blocks.used == 0
    assert all(request.cached_tokens < request.prompt_tokens for request in requests)
