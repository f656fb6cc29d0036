"""The target's answers to many prompts, computed as the engine computes them, with the streams of tapped layers kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.block_manager import BlockManager
from local_engine.model_runner import Computed, ModelRunner
from local_engine.request import Request, SamplingParams
from local_engine.sampler import Sampler
from local_engine.scheduler import Chunk, Scheduler

TOP_K = 50
STEP_TOKENS = 512


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


class Answerer:
    """Runs tasks through the target, `lanes` at once. What a task gets depends on the seed, its number and its prompt."""

    def __init__(
        self, runner: ModelRunner, ends: frozenset[int], *, lanes: int, taps: Sequence[int] = (), seed: int = 0
    ) -> None:
        # Nothing is shared: what is found in the cache is not computed, and its streams would be missing.
        blocks = BlockManager(runner.pool.blocks, runner.pool.block_size, share=False)
        self._runner, self._ends, self._taps, self._seed = runner, ends, tuple(taps), seed
        self._scheduler = Scheduler(lanes, max(lanes, STEP_TOKENS), blocks)
        self._sampler = Sampler()
        self._streams: dict[int, list[Tensor]] = {}

    def answer(self, tasks: Sequence[Task]) -> Iterator[Text]:
        """Texts in the order in which they end. A caller that stops early takes what `unfinished` holds.

        Raises NeverFits for a task that the runner's cache has no room for.
        """
        for task in tasks:
            cut = TOP_K if task.temperature else 0
            params = SamplingParams(
                task.max_tokens, task.temperature, top_k=cut, seed=self._seed * 1_000_003 + task.number
            )
            self._scheduler.add(Request(task.number, list(task.tokens), params))
        while self._scheduler.running or self._scheduler.waiting:
            yield from self._step()

    def unfinished(self) -> list[Text]:
        """What is under way, as texts that were cut off; nothing is after it."""
        running = list(self._scheduler.running)
        return [text for text in map(self._end, running) if len(text.tokens) > text.prompt]

    def _step(self) -> Iterator[Text]:
        chunks = self._scheduler.schedule(0.0).chunks
        computed = self._runner.run(chunks, self._taps)
        self._scheduler.commit(chunks)
        self._keep(chunks, computed)
        sampled = self._sampler.sample(computed.logits, computed.rows)
        for row, chosen in zip(computed.rows, sampled, strict=True):
            request = row.request
            request.tokens.append(chosen.token)
            if chosen.token in self._ends or request.answered >= request.params.max_tokens:
                yield self._end(request)

    def _keep(self, chunks: Sequence[Chunk], computed: Computed) -> None:
        if computed.streams is None:
            return
        streams = computed.streams.cpu()
        for chunk in chunks:
            if chunk.start == 0:  # the first part, or a preempted request that is computed again
                self._streams[chunk.request.id] = []
            first = computed.firsts[chunk.request.id]
            self._streams[chunk.request.id].append(streams[first : first + chunk.length])

    def _end(self, request: Request) -> Text:
        self._scheduler.remove(request)
        self._sampler.forget(request)
        rows = self._streams.pop(request.id, None)
        streams = torch.cat(rows) if rows else torch.empty(len(request.tokens) - 1, 0)
        return Text(request.id, request.tokens, request.prompt_tokens, streams)
