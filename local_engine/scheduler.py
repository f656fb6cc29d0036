"""Which tokens the next step computes; pure bookkeeping without tensors, clock or I/O.

Invariant: a slot belongs to exactly one running request or to the free list, never to both. One rule schedules
everything: a request has tokens it knows and tokens it has computed, and each step spends its budget on closing gaps,
one-token gaps first, so that running answers never wait for somebody's long prompt.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from local_engine.request import Request


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `length` tokens of `request`, from position `start` on."""

    request: Request
    start: int
    length: int

    @property
    def closes_gap(self) -> bool:
        """Whether the step ends with all known tokens computed, so that a new token can be sampled."""
        return self.start + self.length == len(self.request.tokens)


class Scheduler:
    """First come, first served into `max_batch` slots; at most `step_tokens` tokens per step."""

    def __init__(self, max_batch: int, step_tokens: int) -> None:
        self.max_batch = max_batch
        self.step_tokens = step_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.free_slots = list(range(max_batch - 1, -1, -1))

    def add(self, request: Request) -> None:
        """Let the request wait for a slot."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request, waiting or running; its slot is free for the next step."""
        if request.slot is None:
            self.waiting.remove(request)
            return
        self.running.remove(request)
        self.free_slots.append(request.slot)
        request.slot = None

    def schedule(self) -> list[Chunk]:
        """Admit what fits, then share out the step's budget. Empty exactly when there is nothing to do."""
        while self.waiting and self.free_slots:
            request = self.waiting.popleft()
            request.slot = self.free_slots.pop()
            self.running.append(request)
        budget = self.step_tokens
        chunks = []
        for request in sorted(self.running, key=lambda r: r.gap > 1):  # stable: decode first, then oldest prefill
            length = min(request.gap, budget)
            if length == 0:
                break
            chunks.append(Chunk(request, request.computed, length))
            budget -= length
        return chunks

    def check_integrity(self) -> None:
        """Raise AssertionError unless every slot has exactly one owner."""
        owned = [request.slot for request in self.running]
        slots = sorted([slot for slot in owned if slot is not None] + self.free_slots)
        assert None not in owned, "a running request has no slot"
        assert slots == list(range(self.max_batch)), f"slots are lost or owned twice: {slots!r}"
        assert all(request.slot is None for request in self.waiting), "a waiting request holds a slot"
