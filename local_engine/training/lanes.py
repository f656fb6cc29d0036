"""Answers many prompts in lockstep, one lane of keys and values each: offline work wants tokens per second, not latency.

Where the engine attends request by request, here one call per layer serves all lanes, padded to the longest: at a
hundred lanes that is two to three times as many tokens per second on a CPU. A lane that ends takes the next prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from local_engine.models.decoder import Decoder

TOP_K = 50
_PREFILL_TOKENS = 512
_ROUND = 32  # the padded context is a multiple of it: fewer shapes for the kernels to prepare


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to answer: `number` names it in the result; `temperature` 0 is greedy."""

    number: int
    tokens: tuple[int, ...]
    max_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt and its answer, `tokens` from `prompt` on; `streams` [len(tokens) - 1, taps * hidden].

    Row i of `streams` is what the target's tapped layers said at token i, so its last tap predicts token i + 1.
    """

    number: int
    tokens: list[int]
    prompt: int
    streams: Tensor


@dataclass(slots=True)
class _Lane:
    task: Task
    tokens: list[int]
    rows: list[Tensor] = field(default_factory=list)


class LaneAttention:
    """`StepAttention` over one tensor of keys and one of values per layer, [lanes, kv_heads, room, head_dim]."""

    def __init__(self, decoder: Decoder, lanes: int, room: int) -> None:
        config = decoder.config
        self.lanes, self.room, self.device, dtype = lanes, room, decoder.embeddings.device, decoder.embeddings.dtype
        shape = (config.layers, lanes, config.kv_heads, room, config.head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=self.device)
        self._values = torch.zeros(shape, dtype=dtype, device=self.device)
        self._starts: list[tuple[int, int]] = []  # of a prefill: (lane, tokens)
        self._where = torch.zeros(0)
        self._positions = torch.zeros(0)
        self._context = 0
        self._mask = torch.zeros(0)

    def begin_prefill(self, starts: Sequence[tuple[int, int]]) -> None:
        """The next forward computes whole prompts, end to end, of these (lane, tokens)."""
        self._starts = list(starts)

    def begin_decode(self, lanes: Tensor, positions: Tensor) -> None:
        """The next forward computes one token for each of `lanes`, at `positions`; both [n] int64.

        All lanes in order are read in place, fewer are copied.
        """
        self._starts = []
        self._where, self._positions = lanes, positions
        self._context = min(self.room, -(-(int(positions.max()) + 1) // _ROUND) * _ROUND)
        hidden = torch.arange(self._context, device=self.device)[None] > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._keys.dtype, device=self.device)
        self._mask = mask.masked_fill(hidden, -torch.inf)[:, None, None]

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """As `StepAttention.attend`."""
        all_keys, all_values = self._keys[layer], self._values[layer]
        if self._starts:
            return self._attend_prompts(all_keys, all_values, queries, keys, values)
        all_keys[self._where, :, self._positions] = keys
        all_values[self._where, :, self._positions] = values
        seen_keys, seen_values = all_keys[:, :, : self._context], all_values[:, :, : self._context]
        if len(self._where) < self.lanes:
            seen_keys, seen_values = seen_keys[self._where], seen_values[self._where]
        tokens, heads, head_dim = queries.shape
        grouped = queries.view(tokens, keys.shape[1], -1, head_dim)
        mixed = scaled_dot_product_attention(grouped, seen_keys, seen_values, attn_mask=self._mask)
        return mixed.reshape(tokens, heads, head_dim)

    def _attend_prompts(
        self, all_keys: Tensor, all_values: Tensor, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        mixed, first = [], 0
        for lane, tokens in self._starts:
            own = slice(first, first + tokens)
            first += tokens
            new_keys, new_values = keys[own].transpose(0, 1), values[own].transpose(0, 1)
            all_keys[lane, :, :tokens], all_values[lane, :, :tokens] = new_keys, new_values
            out = scaled_dot_product_attention(
                queries[own].transpose(0, 1)[None], new_keys[None], new_values[None], is_causal=True, enable_gqa=True
            )
            mixed.append(out[0].transpose(0, 1))
        return torch.cat(mixed)


class Answerer:
    """Runs tasks through the target; deterministic for a seed, a list of tasks and a number of lanes."""

    def __init__(
        self, decoder: Decoder, ends: frozenset[int], *, lanes: int, room: int, taps: Sequence[int], seed: int
    ) -> None:
        self.decoder, self.ends, self.room = decoder, ends, room
        self._attention = LaneAttention(decoder, lanes, room)
        self._lanes: dict[int, _Lane] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._device = decoder.embeddings.device
        self._taps = tuple(taps)

    @torch.inference_mode()
    def answer(self, tasks: Sequence[Task]) -> Iterator[Text]:
        """Texts in the order in which they end. A caller that stops early takes what `unfinished` holds."""
        waiting = list(reversed(tasks))
        while waiting or self._lanes:
            free = [lane for lane in range(self._attention.lanes) if lane not in self._lanes]
            # A few free lanes are worth waiting for: prompts are computed together.
            if waiting and len(free) * 8 >= min(self._attention.lanes, len(waiting) * 8):
                yield from self._start(free, waiting)
            if self._lanes:
                yield from self._step()

    def unfinished(self) -> list[Text]:
        """What the lanes hold, as texts that were cut off; the lanes are free then."""
        texts = [self._text(lane) for lane in self._lanes.values() if len(lane.tokens) > len(lane.task.tokens)]
        self._lanes.clear()
        return texts

    def _start(self, free: list[int], waiting: list[Task]) -> Iterator[Text]:
        while free and waiting:
            chosen: list[tuple[int, Task]] = []
            total = 0
            while free and waiting and (not chosen or total + len(waiting[-1].tokens) <= _PREFILL_TOKENS):
                task = waiting.pop()
                if len(task.tokens) + task.max_tokens > self.room:
                    raise ValueError(f"task {task.number!r} does not fit a lane of {self.room!r} tokens")
                total += len(task.tokens)
                chosen.append((free.pop(), task))
            tokens = torch.tensor([token for _, task in chosen for token in task.tokens], device=self._device)
            lengths = [len(task.tokens) for _, task in chosen]
            positions = torch.cat([torch.arange(length, device=self._device) for length in lengths])
            self._attention.begin_prefill([(lane, len(task.tokens)) for lane, task in chosen])
            streams, rows = self._forward(tokens, positions)
            last = torch.tensor(lengths).cumsum(0) - 1
            for (lane, task), part in zip(chosen, torch.split(rows, lengths), strict=True):
                self._lanes[lane] = _Lane(task, list(task.tokens), [part])
            yield from self._take([lane for lane, _ in chosen], self.decoder.logits(streams[last.to(self._device)]))

    def _step(self) -> Iterator[Text]:
        busy = sorted(self._lanes)
        # A few idle lanes compute along, for nothing: leaving them out would copy the keys of all others.
        order = busy if len(busy) * 2 < self._attention.lanes else list(range(self._attention.lanes))
        texts = [self._lanes[lane].tokens if lane in self._lanes else [0] for lane in order]
        positions = torch.tensor([len(tokens) - 1 for tokens in texts], device=self._device)
        self._attention.begin_decode(torch.tensor(order, device=self._device), positions)
        streams, rows = self._forward(torch.tensor([tokens[-1] for tokens in texts], device=self._device), positions)
        for lane, row in zip(order, torch.split(rows, 1), strict=True):
            if lane in self._lanes:
                self._lanes[lane].rows.append(row)
        if len(busy) < len(order):
            streams = streams[torch.tensor(busy, device=self._device)]
        yield from self._take(busy, self.decoder.logits(streams))

    def _forward(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The last stream, and the taps side by side on the CPU."""
        tapped: dict[int, Tensor] = {}
        streams = self.decoder.hidden(tokens, positions, self._attention, self._taps, tapped)
        rows = [tapped[tap] for tap in self._taps] or [streams[:, :0]]
        return streams, torch.cat(rows, dim=-1).cpu()

    def _take(self, order: list[int], logits: Tensor) -> Iterator[Text]:
        """Choose a token for each lane of `order`; lanes that end give their text."""
        temperatures = torch.tensor([self._lanes[lane].task.temperature for lane in order])
        for lane, token in zip(order, choose(logits.cpu(), temperatures, self._generator), strict=True):
            held = self._lanes[lane]
            held.tokens.append(token)
            if token in self.ends or len(held.tokens) - len(held.task.tokens) >= held.task.max_tokens:
                del self._lanes[lane]
                yield self._text(held)

    def _text(self, lane: _Lane) -> Text:
        return Text(lane.task.number, lane.tokens, len(lane.task.tokens), torch.cat(lane.rows))


def choose(logits: Tensor, temperatures: Tensor, generator: torch.Generator) -> list[int]:
    """A token per row of `logits` [n, vocab]: the largest where the temperature is 0, else drawn from the TOP_K largest."""
    kept, indices = logits.topk(min(TOP_K, logits.shape[1]))
    shares = (kept / temperatures.clamp(min=1e-4)[:, None]).softmax(-1).cumsum(-1)
    points = torch.rand(len(logits), 1, generator=generator) * shares[:, -1:]
    places = (shares <= points).sum(-1).clamp(max=kept.shape[1] - 1).where(temperatures > 0, 0)
    return [int(token) for token in indices.gather(1, places[:, None]).flatten()]
