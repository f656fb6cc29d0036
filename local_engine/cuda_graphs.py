"""Steps of few fixed shapes, recorded once as CUDA graphs and replayed: a replay is one call instead of hundreds.

On a device that is no GPU a step of a fixed shape is computed anew each time, so all but the recording is tested there.
Memory is shared by all graphs, so only one step may be in the air at a time. A shape that cannot be recorded for want of
memory is left out, and its steps are computed launch by launch.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch

from local_engine.step_buffers import StepBuffers, StepItem

log = logging.getLogger("local_engine")

_VERIFIED_ROWS = 64
"""Graphs that verify drafts have at least room for so many rows, however few requests may run at once."""

Compute = Callable[[StepBuffers], None]


def batch_buckets(most: int) -> list[int]:
    """Numbers of requests that get a graph: 1, 2, 4, 8, then every 16 up to `most`, which is always the last."""
    sizes = [size for size in (1, 2, 4, 8, *range(16, most, 16)) if size < most]
    return [*sizes, most]


def verify_rows(most_drafts: int) -> list[int]:
    """New tokens per request that get graphs: 1, and powers of two up to the first that holds `most_drafts` + 1."""
    sizes = [1]
    while sizes[-1] < most_drafts + 1:
        sizes.append(2 * sizes[-1])
    return sizes


class GraphSet:
    """Buffers and graphs for each number of requests and of rows of each; `pick` finds the smallest that fits.

    `compute(buffers)` is recorded; it must do without the host and read what changes from the buffers alone.
    """

    def __init__(
        self, compute: Compute, most_requests: int, most_drafts: int, width: int, block_size: int, device: torch.device
    ) -> None:
        self.device = device
        self._compute = compute
        self._width, self._block_size = width, block_size
        self.requests, self.rows = batch_buckets(most_requests), verify_rows(most_drafts)
        self.captured: dict[tuple[int, int], tuple[StepBuffers, Callable[[], None]]] = {}

    @property
    def most_rows(self) -> int:
        """Rows of the largest step that gets a graph."""
        return self.requests[-1] if self.rows == [1] else max(self.requests[-1], _VERIFIED_ROWS)

    def capture_all(self) -> None:
        """Record every shape, the largest first, so that the memory it needs serves the others as well."""
        pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        for rows in reversed(self.rows):
            for requests in reversed(self.requests):
                if requests * rows > self.most_rows:
                    continue  # so many rows are bound by arithmetic: nobody drafts there
                try:
                    buffers = StepBuffers(requests, rows, self._width, self._block_size, self.device)
                    self.captured[requests, rows] = buffers, _record(self._compute, buffers, pool)
                except torch.OutOfMemoryError:
                    log.warning("no memory for the graph of %d requests of %d rows; it runs eagerly", requests, rows)
                    torch.cuda.empty_cache()

    def pick(self, items: Sequence[StepItem]) -> tuple[StepBuffers, Callable[[], None]] | None:
        """Buffers and replay for these items; None when no recorded shape holds them."""
        longest = max(len(item.tokens) for item in items)
        if longest > self.rows[-1] or len(items) > self.requests[-1]:
            return None
        if max(len(item.blocks) for item in items) > self._width:
            return None
        rows = self.rows[bisect_left(self.rows, longest)]
        return self.captured.get((self.requests[bisect_left(self.requests, len(items))], rows))


def _record(compute: Compute, buffers: StepBuffers, pool: Any) -> Callable[[], None]:
    """A replay of `compute(buffers)`; the buffers hold padding only, so that recording changes nothing."""
    if pool is None:
        return lambda: compute(buffers)
    aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        compute(buffers)  # compiles kernels and makes handles, which must not happen while recording
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        compute(buffers)
    return graph.replay
