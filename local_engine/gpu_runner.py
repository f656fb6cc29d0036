"""Runs steps on a GPU: fixed shapes by CUDA graphs, others launch by launch; tokens are chosen where the logits are.

Untested on a GPU so far; on a CPU the same code runs with torch's reference kernels, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.batch import rows_of
from local_engine.cuda_graphs import GraphSet
from local_engine.kernels.kernel_set import Kernels, kernels_for
from local_engine.layers.fused_decoder import FusedDecoder, can_fuse
from local_engine.layers.kernel_attention import KernelAttention
from local_engine.model_runner import Computed, ModelRunner
from local_engine.run_ahead import RunAhead
from local_engine.scheduler import Chunk
from local_engine.step_buffers import (
    RaggedStep,
    StepBuffers,
    StepItem,
    chosen_on_device,
    new_event,
    ragged_step,
    seed_of,
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """`logits` [n, vocab] float32 of the rows that were wanted, valid until the next step; `tokens` chosen from them.

    Item i's rows of `streams` [rows, taps * hidden] begin at `firsts[i]`.
    """

    logits: Tensor
    tokens: Tensor
    streams: Tensor
    firsts: list[int]


class Ahead:
    """Several steps of decoding, begun on the device; tokens come back step by step while it goes on.

    `streams` [requests, taps * hidden] are the last step's, valid behind its tokens and until the next step.
    """

    def __init__(self, tokens: Tensor, events: Sequence[torch.cuda.Event | None], streams: Tensor) -> None:
        self._tokens, self._events, self.streams = tokens, events, streams

    def tokens(self, step: int) -> list[int]:
        """One token per request, of those that were still running; waits for the step."""
        event = self._events[step]
        if event is not None:
            event.synchronize()
        tokens: list[int] = self._tokens[step].tolist()
        return tokens


class GpuRunner(ModelRunner):
    """The decoder and pool of `plain`; up to `max_batch` requests of `max_context` tokens and `max_drafts` get graphs.

    Graphs are recorded once, by the first step. They give the streams behind the layers `taps`, those of the drafters;
    a step that wants others (embeddings do) runs launch by launch.
    """

    def __init__(
        self, plain: ModelRunner, *, max_batch: int, max_context: int, max_drafts: int = 0,
        taps: Sequence[int] = (), graphs: bool = True, kernels: Kernels | None = None,
    ) -> None:  # fmt: skip
        self.decoder, self.device, self.pool, self.native = plain.decoder, plain.device, plain.pool, None
        self._kernels = kernels or kernels_for(self.device)
        self._fused = FusedDecoder(self.decoder, self._kernels) if can_fuse(self.decoder.config) else None
        self.max_batch, self.max_context, self.max_drafts = max_batch, max_context, max_drafts
        # A mixture asks the host which experts were chosen, which no graph can.
        self._wants_graphs = graphs and not self.decoder.config.experts
        self._read = torch.empty(0)
        self._taps = tuple(taps)
        self.graphs: GraphSet | None = None

    def prepare(self) -> None:
        """Record the graphs unless they are there."""
        if not self._wants_graphs or self.graphs is not None:
            return
        config = self.decoder.config
        width = -(-self.max_context // self.pool.block_size)
        self.graphs = GraphSet(
            self._compute, self.max_batch, self.max_drafts, width, self.pool.block_size, self.device
        )  # fmt: skip
        rows = self.graphs.most_rows
        self._logits = torch.empty(rows, config.vocab_size, dtype=torch.float32, device=self.device)
        size = len(self._taps) * config.hidden_size
        self._streams = torch.empty(rows, size, dtype=self.decoder.embeddings.dtype, device=self.device)
        self.graphs.capture_all()

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], taps: Sequence[int] = ()) -> Computed:
        """As `ModelRunner.run`; logits and streams stay on the device and are valid until the next step."""
        self.prepare()
        result = self.step([item_of(chunk) for chunk in chunks], [wanted_of(chunk) for chunk in chunks], taps)
        rows = [row for chunk in chunks if chunk.closes_gap for row in rows_of(chunk)]
        firsts = {chunk.request.id: first for chunk, first in zip(chunks, result.firsts, strict=True)}
        return Computed(result.logits, rows, result.streams if taps else None, firsts)

    def ahead(self) -> RunAhead | None:
        """Graphs are what steps ahead are made of."""
        return RunAhead(self) if self._wants_graphs else None

    @torch.inference_mode()
    def step(self, items: Sequence[StepItem], wanted: Sequence[int], taps: Sequence[int] = ()) -> StepResult:
        """Compute the items; the last `wanted[i]` tokens of item i have their rows among the result's, in order.

        A token is greedy, or drawn at the item's temperature where that is above 0.
        """
        recorded = not taps or tuple(taps) == self._taps
        captured = self.graphs.pick(items) if recorded and self.graphs is not None else None
        if captured is None:
            return self._eager(items, wanted, taps)
        buffers, replay = captured
        buffers.fill(items)
        replay()
        firsts = [index * buffers.rows_each for index in range(len(items))]
        if buffers.rows_each == 1 and all(wanted):
            return StepResult(self._logits[: len(items)], buffers.sampled[: len(items)], self._streams, firsts)
        rows = [
            first + at
            for first, item, count in zip(firsts, items, wanted, strict=True)
            for at in range(len(item.tokens) - count, len(item.tokens))
        ]
        chosen = self._send(rows)
        return StepResult(self._logits[chosen], buffers.sampled[chosen], self._streams, firsts)

    @torch.inference_mode()
    def run_ahead(self, items: Sequence[StepItem], steps: int) -> Ahead | None:
        """Begin `steps` steps of one token each, every one fed with the token before; None when no graph fits.

        An item runs while its position is before its `limit`; what comes back for it after that means nothing.
        """
        self.prepare()
        captured = None if self.graphs is None else self.graphs.pick(items)
        if captured is None or captured[0].rows_each > 1:
            return None
        buffers, replay = captured
        buffers.fill(items)
        tokens = self._read_buffer(steps)[:, : len(items)]
        events: list[torch.cuda.Event | None] = []
        for step in range(steps):
            replay()
            tokens[step].copy_(buffers.sampled[: len(items)], non_blocking=True)
            events.append(new_event(self.device))
            if (event := events[-1]) is not None:
                event.record()
        return Ahead(tokens, events, self._streams[: len(items)])

    def _compute(self, buffers: StepBuffers) -> None:
        """One step over static buffers, recorded as a graph: logits, tokens, and the buffers made ready for the next."""
        attention = KernelAttention(self.pool, buffers.slots, [buffers.rows], self._kernels)
        tapped: dict[int, Tensor] = {}
        stream = self._hidden(buffers.tokens, buffers.positions, buffers.slots, attention, self._taps, tapped)
        if self._taps:
            torch.cat([tapped[layer] for layer in self._taps], dim=-1, out=self._streams[: stream.shape[0]])
        logits = self._logits[: stream.shape[0]]
        logits.copy_(self._logits_of(stream))
        if buffers.rows_each > 1:
            buffers.sampled.copy_(logits.argmax(-1))
            return
        kernels = self._kernels
        buffers.sampled.copy_(kernels.sample(logits, buffers.seeds, buffers.positions, buffers.temperatures))
        kernels.advance(
            buffers.tokens, buffers.positions, buffers.slots, buffers.lengths, buffers.contexts, buffers.tables,
            buffers.limits, buffers.sampled, buffers.block_size,
        )  # fmt: skip

    def _eager(self, items: Sequence[StepItem], wanted: Sequence[int], taps: Sequence[int]) -> StepResult:
        step: RaggedStep = ragged_step(items, self.pool.block_size, self.device)
        attention = KernelAttention(self.pool, step.slots, step.groups, self._kernels)
        tapped: dict[int, Tensor] = {}
        stream = self._hidden(step.tokens, step.positions, step.slots, attention, taps, tapped)
        streams = torch.cat([tapped[layer] for layer in taps], dim=-1) if taps else stream[:, :0]
        rows: list[int] = []
        firsts: list[int] = []
        owners: list[StepItem] = []
        positions: list[int] = []
        first = 0
        for item, count in zip(items, wanted, strict=True):
            firsts.append(first)
            last = first + len(item.tokens)
            rows += range(last - count, last)
            owners += [item] * count
            positions += range(item.start + len(item.tokens) - count, item.start + len(item.tokens))
            first = last
        logits = self._logits_of(stream[self._send(rows)]).float()
        seeds, at = self._send([item.seed for item in owners]), self._send(positions)
        temperatures = torch.tensor([item.temperature for item in owners], device=self.device)
        tokens = self._kernels.sample(logits, seeds, at, temperatures) if rows else seeds.long()
        return StepResult(logits, tokens, streams, firsts)

    def _hidden(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, attention: KernelAttention, taps: Sequence[int],
        tapped: dict[int, Tensor],
    ) -> Tensor:  # fmt: skip
        if self._fused is not None:
            return self._fused.hidden(tokens, positions, slots, attention, taps, tapped)
        return self.decoder.hidden(tokens, positions, attention, taps, tapped)

    def _logits_of(self, stream: Tensor) -> Tensor:
        return self.decoder.logits(stream) if self._fused is None else self._fused.logits(stream)

    def _send(self, numbers: list[int]) -> Tensor:
        """[n] int32 on the device, without waiting for it."""
        host = torch.tensor(numbers, dtype=torch.int32)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _read_buffer(self, steps: int) -> Tensor:
        """Room for the tokens of `steps` steps, where the device can write without the host's help."""
        if self._read.shape[0] < steps:
            pinned = self.device.type == "cuda"
            self._read = torch.empty(steps, self.max_batch, dtype=torch.int64, pin_memory=pinned)
        return self._read


def item_of(chunk: Chunk) -> StepItem:
    """What the step needs to know of a chunk; its drafts come behind its known tokens."""
    request, end = chunk.request, chunk.start + chunk.length
    assert request.table is not None
    known = end - chunk.drafts
    params = request.params
    return StepItem(
        [*request.tokens[chunk.start : known], *request.drafts[: chunk.drafts]],
        chunk.start, request.table.blocks, end, seed_of(request),
        params.temperature if request.guide is None and chosen_on_device(params) else 0.0,
    )  # fmt: skip


def wanted_of(chunk: Chunk) -> int:
    """How many of its last rows give logits that are wanted."""
    return 1 + chunk.drafts if chunk.closes_gap else 0
