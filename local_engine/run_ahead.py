"""Several decode steps begun at once, each fed with the tokens of the one before, so that a GPU never waits for the host.

Room for the tokens to come is asked for as if they were drafts; they are no guesses, and none of them is verified. While
the device computes, tokens that came back become text. A newcomer waits for the steps in the air: nothing is begun ahead
while somebody waits, a prompt is being computed, or drafts are to be verified. What was computed behind the end of an answer
is dropped; its blocks are not given to anybody before the last step in the air has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from local_engine.request import Request, Sampled
from local_engine.scheduler import Chunk, Scheduler
from local_engine.speculative.verify import Run
from local_engine.step_buffers import StepItem, chosen_on_device, seed_of
from local_engine.step_faults import broken_logits

if TYPE_CHECKING:
    from local_engine.gpu_runner import Ahead, GpuRunner  # needs Triton

STEPS = 8
"""Begun at once: a large model on a fast GPU takes 4 ms each, so a newcomer waits for 30 ms at most."""


class RunAhead:
    """`reserve` goes before the scheduler; where something is `reserved`, `begin` takes its chunks.

    `streams` [chunks, taps * hidden] are those of the last step that was begun, for drafters; valid until the next.
    """

    def __init__(self, runner: GpuRunner, steps: int = STEPS) -> None:
        self._runner, self._steps = runner, steps
        self.reserved = False
        self.streams: Tensor | None = None

    def reserve(self, scheduler: Scheduler, most: int = STEPS) -> None:
        """Ask for room for the tokens of up to `most` steps where nobody would have to wait for them.

        With more than one the requests must have no drafts of their own.
        """
        running = scheduler.running
        self.reserved = most > 1 and not scheduler.waiting
        self.reserved &= all(request.gap == 1 and _may_run_ahead(request) for request in running)
        if not self.reserved:
            return
        for request in running:
            further = min(self._steps, most, scheduler.step_tokens // len(running)) - 1
            left = request.params.max_tokens - request.answered - 1
            request.drafts[:] = [0] * min(further, left)

    def begin(self, chunks: Sequence[Chunk], scheduler: Scheduler) -> Iterator[list[Run]]:
        """Start the steps that `chunks` have room for; one list of runs per step, waited for as it is taken.

        The caller commits the chunks with the first. Nothing comes when there is no more than one step in them: compute
        `without_room(chunks)` then.
        """
        wanted = [(len(chunk.request.drafts), chunk.drafts) for chunk in chunks]
        for chunk in chunks:
            chunk.request.drafts.clear()
        further = max(given for _, given in wanted)
        if any(given < asked for asked, given in wanted):  # who got no room must not wait for those who did
            further = min(given for _, given in wanted)
        if further == 0 or any(chunk.length - chunk.drafts != 1 for chunk in chunks):
            return
        ahead = self._runner.run_ahead([_item(chunk) for chunk in chunks], 1 + further)
        if ahead is not None:
            self.streams = ahead.streams
            yield from _rounds(chunks, ahead, 1 + further, scheduler)


def without_room(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks as one step: what was reserved is left out, and given back by the next step."""
    return [chunk._replace(length=chunk.length - chunk.drafts, drafts=0) for chunk in chunks]


def _rounds(chunks: Sequence[Chunk], ahead: Ahead, steps: int, scheduler: Scheduler) -> Iterator[list[Run]]:
    """A request takes part until its room is used up or it was released, which leaves it without a table."""
    for step in range(steps):
        live = [
            (chunk.request, token)
            for chunk, token in zip(chunks, ahead.tokens(step), strict=True)
            if step <= chunk.drafts and chunk.request.table is not None
        ]
        if any(token < 0 for _, token in live):
            raise broken_logits()
        if step > 0:  # what the step before chose is computed now
            for request, _ in live:
                scheduler.accept(request, 1)
        yield [Run(request, [Sampled(token)], 0) for request, token in live]


def _item(chunk: Chunk) -> StepItem:
    request = chunk.request
    assert request.table is not None
    return StepItem(
        [request.tokens[-1]], chunk.start, request.table.blocks, chunk.start + chunk.length,
        seed_of(request), request.params.temperature,
    )  # fmt: skip


def _may_run_ahead(request: Request) -> bool:
    """A seeded draw belongs to the sampler, whose numbers are the same on every device and in every company."""
    params = request.params
    return request.guide is None and chosen_on_device(params) and (params.temperature == 0 or params.seed is None)
