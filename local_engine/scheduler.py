"""Which tokens the next step computes, and who has to wait; pure bookkeeping without tensors, clock or I/O.

Invariant: a running request holds the blocks of all its known tokens, a waiting one holds none. One rule schedules
everything: a request has tokens it knows and tokens it has computed, and each step spends its budget on closing such
gaps, one-token gaps first, so that running answers never wait for somebody's long prompt. When blocks run out, the
request that is last in line gives its blocks back and waits to be computed again; the first in line always goes on, and
it fits the pool alone, so some request always ends.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from local_engine.block_manager import BlockManager
from local_engine.request import Request

AGEING_SECONDS = 10.0
"""One level of priority is worth this much waiting: no request waits for ever behind more urgent ones."""


class NeverFits(ValueError):
    """The request needs more blocks than there are: waiting would not help."""


class Chunk(NamedTuple):
    """Compute `length` tokens of `request`, from position `start` on; the last `drafts` of them are only proposed."""

    request: Request
    start: int
    length: int
    drafts: int = 0

    @property
    def closes_gap(self) -> bool:
        """Whether the step ends with all known tokens computed, so that a new token can be sampled."""
        return self.start + self.length - self.drafts == len(self.request.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """What to compute, and who lost their place: `preempted` wait again, `expired` are forgotten."""

    chunks: list[Chunk] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    expired: list[Request] = field(default_factory=list)


class Scheduler:
    """At most `max_batch` requests run, at most `step_tokens` tokens per step.

    Requests stand in line by arrival; each level of `priority` moves one by AGEING_SECONDS (lower goes first, as in
    vLLM). As that place never changes, a request can be overtaken only by those that arrive within a bounded time.
    """

    def __init__(self, max_batch: int, step_tokens: int, blocks: BlockManager) -> None:
        if step_tokens < max_batch:
            raise ValueError(f"step_tokens ({step_tokens!r}) must be at least max_batch ({max_batch!r})")
        self.max_batch = max_batch
        self.step_tokens = step_tokens
        self.blocks = blocks
        self.waiting: list[Request] = []
        self.running: list[Request] = []  # both in their line's order
        self.preemptions = 0
        self.prefix_queries = 0  # tokens looked up when requests started
        self.prefix_hits = 0  # tokens of those that need not be computed
        self._roomy: list[Request] = []  # who got room for drafts in the last step

    def add(self, request: Request) -> None:
        """Let the request wait for its turn. Raises NeverFits when all blocks together are too few for it."""
        needed = self.blocks.needed(request.longest)
        if needed > self.blocks.blocks:
            size = self.blocks.block_size
            raise NeverFits(
                f"the request may need {request.longest} tokens of cache, {needed} blocks of {size}; the whole cache has "
                f"{self.blocks.blocks}: ask for a shorter answer or enlarge the cache"
            )
        bisect.insort(self.waiting, request, key=place_in_line)

    def remove(self, request: Request) -> None:
        """Forget a request, waiting or running; its blocks are free for the next step."""
        if request.table is None:
            self.waiting.remove(request)
            return
        self.running.remove(request)
        self._release(request)

    def schedule(self, now: float) -> Step:
        """Share out one step's budget. Without chunks exactly when nothing is left to do."""
        step = Step(expired=self._expire(now))
        self._take_room_back()
        budget = self._decode(step, self.step_tokens)
        if len(step.chunks) < len(self.running):
            budget = self._prefill(step, budget)
        if not step.preempted:
            budget = self._admit(step, budget, now)
            self._add_drafts(step, budget)
        return step

    def commit(self, chunks: Sequence[Chunk]) -> None:
        """The step was computed: close the gaps. Drafts are not counted, who verifies them adds what was accepted."""
        for request, start, length, drafts in chunks:
            request.computed = start + length - drafts

    def accept(self, request: Request, drafts: int) -> None:
        """So many of the step's drafts are known tokens now: they are computed already, and can be shared."""
        if drafts and request.table is not None:
            request.computed += drafts
            self.blocks.fill(request.table, request.tokens, request.computed)

    def discard(self, chunks: Sequence[Chunk]) -> None:
        """The step failed: what it should have computed is in no block; its requests are to be removed now."""
        for chunk in chunks:
            if chunk.request.table is not None:
                self.blocks.forget(chunk.request.table, chunk.start)

    def check_integrity(self) -> None:
        """Raise AssertionError unless blocks and requests agree about who runs."""
        tables = [request.table for request in self.running]
        assert all(request.table is None for request in self.waiting), "a waiting request holds blocks"
        for line in (self.running, self.waiting):
            assert line == sorted(line, key=place_in_line), "somebody stands in the wrong place"
        assert len(self.running) <= self.max_batch, "more requests run than may"
        self.blocks.check_integrity([table for table in tables if table is not None])
        for request in self.running:
            assert request.table is not None, "a running request has no blocks"
            assert request.computed <= len(request.table.blocks) * self.blocks.block_size, "tokens outside the blocks"

    def _expire(self, now: float) -> list[Request]:
        expired = [
            each for each in (*self.running, *self.waiting) if each.deadline is not None and each.deadline <= now
        ]
        for request in expired:
            self.remove(request)
        return expired

    def _decode(self, step: Step, budget: int) -> int:
        """One token for everybody whose answer runs. Returns the budget left.

        Who lacks a block takes those of the last in line, which has no chunk yet: so no chunk is ever taken back, and the
        line can be walked while it gets shorter. A table is asked for only where a block begins, which it may lack, and
        where one ends, which can be shared from now on: with many answers each thing looked at costs a step's time.
        """
        size, chunks = self.blocks.block_size, step.chunks
        for request in self.running:
            computed = request.computed
            if len(request.tokens) - computed != 1:
                continue
            place = computed % size
            if place == 0 and not self._make_room(request, step):
                continue
            chunks.append(Chunk(request, computed, 1))
            if place == size - 1:
                self._share(request, computed + 1)
        return budget - len(chunks)

    def _take_room_back(self) -> None:
        """Blocks that only drafts needed which were not accepted."""
        for request in self._roomy:
            if request.table is not None:
                self.blocks.shrink(request.table, len(request.tokens))
        self._roomy.clear()

    def _add_drafts(self, step: Step, budget: int) -> None:
        """Drafts come last and take what is left: they cost nobody a token or a block."""
        for at, chunk in enumerate(step.chunks):
            request = chunk.request
            if not request.drafts or not chunk.closes_gap:
                continue
            drafts = min(len(request.drafts), budget)
            while drafts > 0 and not self._has_room(request, drafts):
                drafts -= 1
            if drafts > 0:
                self._roomy.append(request)
                budget -= drafts
                step.chunks[at] = Chunk(request, chunk.start, chunk.length + drafts, drafts)

    def _prefill(self, step: Step, budget: int) -> int:
        """What is left goes to those whose prompts are being computed, in their order. Returns the budget left."""
        for request in [request for request in self.running if request.gap > 1]:
            if budget == 0:
                break
            assert request.table is not None
            before = request.computed
            request.computed = self.blocks.adopt(request.table, request.tokens, before)
            self._count_shared(request, request.computed - before)
            budget -= self._give(step, request, min(request.gap, budget))
        return budget

    def _give(self, step: Step, request: Request, length: int) -> int:
        """A chunk of `length` tokens; what it will have computed can be shared from now on. Returns `length`."""
        step.chunks.append(Chunk(request, request.computed, length))
        self._share(request, request.computed + length)
        return length

    def _share(self, request: Request, computed: int) -> None:
        assert request.table is not None
        self.blocks.fill(request.table, request.tokens, computed)

    def _make_room(self, request: Request, step: Step) -> bool:
        """Blocks for one more token, taken from the last in line if need be; False when that is the request itself."""
        while not self._has_room(request, 0):
            victim = self.running[-1]
            self._preempt(victim, step)
            if victim is request:
                return False
        return True

    def _has_room(self, request: Request, drafts: int) -> bool:
        assert request.table is not None
        return self.blocks.grow(request.table, len(request.tokens) + drafts)

    def _preempt(self, request: Request, step: Step) -> None:
        self.running.remove(request)
        self._release(request)
        request.computed = 0
        request.preemptions += 1
        request.drafts.clear()
        self.preemptions += 1
        bisect.insort(self.waiting, request, key=place_in_line)
        step.preempted.append(request)

    def _admit(self, step: Step, budget: int, now: float) -> int:
        """Start waiting requests in their order, as long as slots, budget and blocks last. Returns the budget left.

        A block for each running request stays free, so that a newcomer is not preempted by the next step.
        """
        while self.waiting and budget > 0 and len(self.running) < self.max_batch:
            request = self.waiting[0]
            table = self.blocks.begin(request.tokens, request.cache_salt, spare=len(self.running))
            if table is None:
                return budget  # those behind it wait as well, or a large request would starve
            del self.waiting[0]
            request.table = table
            request.computed = table.registered * self.blocks.block_size
            if request.scheduled is None:
                request.scheduled = now
            self.prefix_queries += 0 if request.preemptions else len(request.tokens)
            self._count_shared(request, request.computed)
            bisect.insort(self.running, request, key=place_in_line)
            budget -= self._give(step, request, min(request.gap, budget))
        return budget

    def _count_shared(self, request: Request, tokens: int) -> None:
        """Prompt tokens the request need not compute; what it gets back after a preemption is no gain."""
        if not request.preemptions:
            request.cached_tokens += tokens
            self.prefix_hits += tokens

    def _release(self, request: Request) -> None:
        assert request.table is not None
        self.blocks.release(request.table)
        request.table = None


def place_in_line(request: Request) -> tuple[float, int]:
    """Smaller goes first; does not change while the request lives."""
    return request.arrived + AGEING_SECONDS * request.priority, request.id
