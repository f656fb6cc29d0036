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
        self._runner, self._ends, self._taps, self._seed, self._lanes = runner, ends, tuple(taps), seed, lanes
        self._scheduler = Scheduler(lanes, max(lanes, STEP_TOKENS), blocks)
        self._sampler = Sampler()
        self._streams: dict[int, list[Tensor]] = {}

    def answer(self, tasks: Sequence[Task]) -> Iterator[Text]:
        """Begins them in their order; texts in the order in which they end. Who stops early takes what `unfinished` holds.

        Raises NeverFits for a task that the runner's cache has no room for.
        """
        scheduler, begun = self._scheduler, 0
        while begun < len(tasks) or scheduler.running or scheduler.waiting:
            while begun < len(tasks) and len(scheduler.waiting) < self._lanes:
                scheduler.add(self._request(tasks[begun], begun))
                begun += 1
            yield from self._step()

    def unfinished(self) -> list[Text]:
        """What has an answer so far and all its streams, as texts that were cut off; nothing is under way after it."""
        cut = []
        for request in [*self._scheduler.running, *self._scheduler.waiting]:
            whole = request.answered > 0 and request.gap == 1
            text = self._end(request)
            cut += [text] if whole else []
        return cut

    def _request(self, task: Task, place: int) -> Request:
        cut = TOP_K if task.temperature else 0
        params = SamplingParams(task.max_tokens, task.temperature, top_k=cut, seed=self._seed * 1_000_003 + task.number)
        return Request(task.number, list(task.tokens), params, arrived=float(place))

    def _step(self) -> list[Text]:
        """All of a step is noted before anybody hears of the first text that ended in it."""
        chunks = self._scheduler.schedule(0.0).chunks
        computed = self._runner.run(chunks, self._taps)
        self._scheduler.commit(chunks)
        self._keep(chunks, computed)
        sampled = self._sampler.sample(computed.logits, computed.rows)
        ended = []
        for row, chosen in zip(computed.rows, sampled, strict=True):
            request = row.request
            request.tokens.append(chosen.token)
            if chosen.token in self._ends or request.answered >= request.params.max_tokens:
                ended.append(self._end(request))
        return ended

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
