"""What a GPU step reads about its requests, in one tensor that goes to the device in one copy.

`StepBuffers` stay where they are, padded to a fixed shape, as a CUDA graph wants them; `ragged_step` is for steps of any
shape. Padding is a request of length 0 whose slots are -1: kernels neither read nor write anything for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from local_engine.kernels.paged_rows import PagedRows
from local_engine.request import Request, SamplingParams

_ALIGNED = 4
"""Elements of int32 in 16 bytes: Triton compiles a kernel anew for pointers that are no multiple of it."""

_SALT = secrets.randbits(31)

SHORT = 8
"""Up to so many new tokens a request is attended with those that decode, else with those that prefill."""


@dataclass(frozen=True, slots=True)
class StepItem:
    """One request's part of a step: `tokens` from position `start` on, its `blocks` in order.

    A step may run on by itself, one token at a time, to positions before `limit`. `seed` and `temperature` as
    `kernels.sample` takes them.
    """

    tokens: Sequence[int]
    start: int
    blocks: list[int]
    limit: int
    seed: int = 0
    temperature: float = 0.0


class StepBuffers:
    """Room for `requests` requests of `rows_each` new tokens each, whose blocks number at most `width`.

    Request i has the rows from `i * rows_each` on. `tokens`, `positions` and `slots` [requests * rows_each], `lengths`,
    `contexts`, `limits` and `seeds` [requests], `tables` [requests, width], all int32, and `temperatures` [requests]
    float32 are views of one tensor on the device; `sampled` [requests * rows_each] int64 is for the step's outcome.
    """

    def __init__(self, requests: int, rows_each: int, width: int, block_size: int, device: torch.device) -> None:
        self.requests, self.rows_each, self.block_size = requests, rows_each, block_size
        rows = requests * rows_each
        sizes = [rows, rows, rows, *[requests] * 6, requests * width]
        self._host = torch.zeros(_room(sizes), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._device = torch.zeros(_room(sizes), dtype=torch.int32, device=device)
        parts = _parts(self._device, sizes)
        self.tokens, self.positions, self.slots, first_rows, self.lengths, self.contexts = parts[:6]
        self.limits, self.seeds, temperatures, tables = parts[6:]
        self.temperatures = temperatures.view(torch.float32)
        self.tables = tables.view(requests, width)
        self.rows = PagedRows(first_rows, self.lengths, self.contexts, self.tables, rows_each, block_size)
        self.sampled = torch.zeros(rows, dtype=torch.int64, device=device)
        self._uploaded = new_event(device)
        self._numbers = [part.numpy() for part in _parts(self._host, sizes)]
        self._numbers[8] = self._numbers[8].view(np.float32)
        self._numbers[9] = self._numbers[9].reshape(requests, width)
        self._numbers[3][:] = np.arange(requests) * rows_each
        self._kept: list[list[int]] = [[] for _ in range(requests)]
        self.fill([])

    def fill(self, items: Sequence[StepItem]) -> None:
        """Make `items` the step's requests and the rest padding; the copy to the device is only begun."""
        if self._uploaded is not None:
            self._uploaded.synchronize()  # the copy before may still read what is written here
        tokens, positions, slots, _, lengths, contexts, limits, seeds, temperatures, _ = self._numbers
        slots[:] = -1
        lengths[:] = contexts[:] = positions[:] = tokens[:] = 0
        for index, item in enumerate(items):
            count, row = len(item.tokens), index * self.rows_each
            self._keep_table(index, item.blocks)
            tokens[row : row + count] = item.tokens
            for at in range(count):
                position = item.start + at
                positions[row + at] = position
                slots[row + at] = self._slot(item.blocks, position)
            lengths[index], contexts[index], limits[index] = count, item.start + count, item.limit
            seeds[index], temperatures[index] = item.seed, item.temperature
        self._device.copy_(self._host, non_blocking=True)
        if self._uploaded is not None:
            self._uploaded.record()

    def _keep_table(self, index: int, blocks: list[int]) -> None:
        """Write the table's row only when it changed: comparing is far cheaper than converting."""
        if self._kept[index] != blocks:
            self._kept[index] = list(blocks)
            self._numbers[9][index, : len(blocks)] = blocks

    def _slot(self, blocks: list[int], position: int) -> int:
        return blocks[position // self.block_size] * self.block_size + position % self.block_size


def new_event(device: torch.device) -> torch.cuda.Event | None:
    """A mark in the device's stream that the host can wait for; None on a CPU, which is never behind."""
    if device.type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    return event


@dataclass(frozen=True, slots=True)
class RaggedStep:
    """A step of any shape: `tokens`, `positions` and `slots` [tokens] int32, requests end to end in `groups`."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    groups: list[PagedRows]


def ragged_step(items: Sequence[StepItem], block_size: int, device: torch.device) -> RaggedStep:
    """The items in their order, those with few new tokens in one group, those with many in another."""
    tokens: list[int] = []
    positions: list[int] = []
    first_rows = []
    for item in items:
        first_rows.append(len(tokens))
        tokens += item.tokens
        positions += range(item.start, item.start + len(item.tokens))
    slots = [
        item.blocks[at // block_size] * block_size + at % block_size
        for item in items
        for at in range(item.start, item.start + len(item.tokens))
    ]
    parts: list[list[int]] = [tokens, positions, slots]
    shapes: list[tuple[int, int, int]] = []  # requests, width of their tables, longest
    for short in (True, False):
        chosen = [index for index, item in enumerate(items) if (len(item.tokens) <= SHORT) == short]
        if not chosen:
            continue
        width = max(len(items[index].blocks) for index in chosen)
        parts.append([first_rows[index] for index in chosen])
        parts.append([len(items[index].tokens) for index in chosen])
        parts.append([items[index].start + len(items[index].tokens) for index in chosen])
        parts.append([n for index in chosen for n in [*items[index].blocks, *[0] * (width - len(items[index].blocks))]])
        shapes.append((len(chosen), width, max(len(items[index].tokens) for index in chosen)))
    sizes = [len(part) for part in parts]
    padded = [number for part in parts for number in [*part, *[0] * (-len(part) % _ALIGNED)]]
    host = torch.tensor(padded, dtype=torch.int32)
    if device.type == "cuda":
        host = host.pin_memory()
    views = _parts(host.to(device, non_blocking=True), sizes)
    groups = [
        PagedRows(views[at], views[at + 1], views[at + 2], views[at + 3].view(requests, width), longest, block_size)
        for at, (requests, width, longest) in zip(range(3, len(views), 4), shapes, strict=True)
    ]
    return RaggedStep(views[0], views[1], views[2], groups)


def seed_of(request: Request) -> int:
    """31 bits for the device's draws that are the request's own; another process gives it others."""
    return (request.id * 2654435761 + _SALT) % 2**31


def _room(sizes: Sequence[int]) -> int:
    """Elements that parts of these sizes take when each begins where a kernel reads best."""
    return sum(size + -size % _ALIGNED for size in sizes)


def _parts(whole: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views of the parts laid out so."""
    parts, at = [], 0
    for size in sizes:
        parts.append(whole[at : at + size])
        at += size + -size % _ALIGNED
    return parts


def chosen_on_device(params: SamplingParams) -> bool:
    """Whether the next token is greedy or drawn at a temperature and nothing more, which the device does by itself."""
    plain = SamplingParams(max_tokens=1, temperature=0)
    same = {"max_tokens": 1, "temperature": 0.0, "seed": None, "stop": (), "ignore_eos": False, "markup": False}
    return replace(params, **same) == plain  # type: ignore[arg-type]
