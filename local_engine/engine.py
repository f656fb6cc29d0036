"""The engine: requests in, text out, one step at a time on one thread.

A step that raises ends the requests it carried with an error and frees their blocks; the others go on.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_engine.answer_text import AnswerText
from local_engine.block_manager import BlockManager
from local_engine.config import EngineConfig, ModelConfig
from local_engine.energy import make_meter
from local_engine.errors import DeadlineExceeded, StepFailed
from local_engine.model_runner import ModelRunner
from local_engine.request import FinishReason, Logprobs, Output, Request, Sampled, SamplingParams
from local_engine.run_ahead import STEPS, without_room
from local_engine.sampler import Sampler
from local_engine.scheduler import Chunk, Scheduler, Step
from local_engine.speculative.drafter import Drafter
from local_engine.speculative.speculator import Speculator
from local_engine.speculative.verify import Run, verify
from local_engine.step_faults import BrokenLogits, check_logits, step_failure
from local_engine.structured.guide import Guide, follow, form_failure
from local_engine.tokenizer import Tokenizer

log = logging.getLogger("local_engine")


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer, for callers that do not stream."""

    text: str
    tokens: list[int]
    finish: FinishReason


class Engine:
    """Continuous batching over one model; not thread-safe, `loop.EngineLoop` gives it its thread."""

    def __init__(
        self,
        runner: ModelRunner,
        tokenizer: Tokenizer,
        config: EngineConfig,
        drafters: Sequence[Drafter] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.tokenizer = tokenizer
        self.config = config
        pool = runner.pool
        # A request that would not fit the cache alone could never run to its end: it is refused as too long.
        self.max_context = min(config.max_context, self.model_config.max_positions, pool.blocks * pool.block_size)
        self.blocks = BlockManager(
            pool.blocks, pool.block_size, identity=repr(self.model_config).encode(), share=config.prefix_sharing
        )
        self.scheduler = Scheduler(config.max_batch, config.step_tokens, self.blocks)
        self.sampler = Sampler()
        self.speculator = Speculator(drafters, config.max_drafts) if drafters else None
        self.ahead = runner.ahead()
        self.energy = make_meter(
            config.energy, str(runner.device), core_watts=config.core_watts, gpu_watts=config.gpu_watts,
            grams_per_kwh=config.grams_per_kwh,
        )  # fmt: skip
        self._texts: dict[int, AnswerText] = {}
        self._clock = clock
        self._ids = itertools.count(1)

    @property
    def model_config(self) -> ModelConfig:
        """Shape of the loaded model."""
        return self.runner.decoder.config

    @property
    def busy(self) -> bool:
        """Whether a step would have work."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def new_request(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        cache_salt: str | None = None,
        priority: int = 0,
        seconds: float | None = None,
        guide: Guide | None = None,
    ) -> Request:
        """A request for `add`; prompt and max_tokens must fit the context (the server refuses before).

        It shares cached blocks only with requests of the same `cache_salt`, and is ended `seconds` from now.
        """
        if not prompt or len(prompt) + params.max_tokens > self.max_context:
            raise ValueError(f"{len(prompt)} + {params.max_tokens} tokens do not fit 1..{self.max_context}")
        now = self._clock()
        deadline = None if seconds is None else now + seconds
        request = Request(next(self._ids), list(prompt), params, cache_salt, priority, deadline=deadline, arrived=now)
        request.guide = guide
        return request

    def add(self, request: Request) -> None:
        """Let the request take part from the next step on."""
        params = request.params
        self._texts[request.id] = AnswerText(self.tokenizer, params.stop, markup=params.markup)
        self.scheduler.add(request)

    def abort(self, request: Request) -> None:
        """Drop a request, running or waiting; one that has already ended is fine."""
        if request.id in self._texts:
            self._release(request)

    def step(self) -> list[Output]:
        """Compute one step: schedule, run, sample, commit. Nothing to do gives an empty list."""
        now = self._clock()
        if self.speculator is not None:
            self.speculator.propose(self.scheduler)
        if self.ahead is not None:
            self.ahead.reserve(self.scheduler, STEPS if self.speculator is None else self.speculator.steps_ahead)
        step = self.scheduler.schedule(now)
        outputs = [self._expire(request, now) for request in step.expired]
        if step.chunks:
            outputs += self._compute(step)
            self.energy.bill(step.chunks)
        return outputs

    def generate(self, prompt: list[int], params: SamplingParams) -> Completion:
        """Answer one prompt to its end. For tests and the bench; other requests must not be running."""
        request = self.new_request(prompt, params)
        self.add(request)
        text = ""
        while True:
            for output in self.step():
                if output.error is not None:
                    raise output.error
                text += output.text
                if output.finish is not None:
                    return Completion(text, request.answer, output.finish)

    def check_integrity(self) -> None:
        """Raise AssertionError when blocks, generators and texts disagree about who is running."""
        self.scheduler.check_integrity()
        known = {request.id for request in [*self.scheduler.running, *self.scheduler.waiting]}
        assert set(self._texts) == known, "texts and requests disagree"
        assert self.sampler.owners <= known, "a generator outlives its request"
        assert known or not self.blocks.used, "blocks outlive their request"

    def _compute(self, step: Step) -> list[Output]:
        speculator, chunks = self.speculator, step.chunks
        outputs: list[Output] = []
        try:
            if self.ahead is not None and self.ahead.reserved:
                steps = 0
                for runs in self.ahead.begin(chunks, self.scheduler):
                    outputs += self._commit([] if steps else chunks, runs)
                    steps += 1
                if steps:
                    if speculator is not None:
                        speculator.observe_ahead(chunks, steps, self.ahead.streams)
                    return outputs
                chunks = without_room(chunks)
            computed = self.runner.run(chunks, () if speculator is None else speculator.taps)
            check_logits(computed.logits, computed.likeliest)
            verified = verify if speculator is None else speculator.verify
            runs = verified(computed.logits, computed.rows, self.sampler, likeliest=computed.likeliest)
        except Exception as error:
            bug = not isinstance(
                error, BrokenLogits
            )  # else the weights are to blame, and where in the code says nothing
            log.error("a step of %d requests failed: %s", len(chunks), error, exc_info=bug)
            self.scheduler.discard(chunks)
            failure = step_failure(error)
            return outputs + [self._fail(each.request, failure) for each in chunks if each.request.table is not None]
        outputs = self._commit(chunks, runs)
        if speculator is not None:
            speculator.observe(chunks, runs, computed)
        return outputs

    def _commit(self, chunks: list[Chunk], runs: list[Run]) -> list[Output]:
        self.scheduler.commit(chunks)
        now = self._clock()
        outputs = []
        for run in runs:
            request, chosen, drafted = run
            request.last_token = now
            if request.first_token is None:
                request.first_token = now
            shown, finish = self._accept_one(request, chosen[0].token)
            if finish is None and not drafted and request.params.logprobs is None:
                outputs.append(Output(request, shown, 1))  # as nearly always
            else:
                outputs.append(self._accept_rest(run, shown, finish))
        return outputs

    def _accept_rest(self, run: Run, shown: str, finish: FinishReason | None) -> Output:
        """Take what follows a run's first token, up to the one that ends the answer: those behind it never were."""
        request, chosen, drafted = run
        kept = 1
        for sampled in chosen[1:] if finish is None else ():
            piece, finish = self._accept_one(request, sampled.token)
            shown += piece
            kept += 1
            if finish is not None:
                break
        accepted = min(kept, run.accepted)
        if drafted and self.speculator is not None:
            self.speculator.counts.observe(drafted, accepted)
        if accepted:
            self.scheduler.accept(request, accepted)
        thought, failure = 0, None
        if finish is not None:
            self._release(request)
            if request.guide is not None:
                follow(request.guide, request.answer)
                thought, failure = request.guide.thought, form_failure(request.guide)
        return Output(
            request,
            shown,
            kept,
            finish if failure is None else "error",
            failure,
            accepted_drafts=accepted,
            rejected_drafts=drafted - accepted,
            logprobs=() if request.params.logprobs is None else _logprobs(chosen[:kept]),
            reasoning_tokens=thought,
        )

    def _accept_one(self, request: Request, token: int) -> tuple[str, FinishReason | None]:
        """Append a token and return the text it completes; an end token is counted but has no text."""
        tokens, params, text = request.tokens, request.params, self._texts[request.id]
        tokens.append(token)
        finish: FinishReason | None = None
        shown = ""
        if token in self.tokenizer.end_ids and not (params.ignore_eos and request.guide is None):
            finish = "stop"
        else:
            shown = text.push(token)
            if text.stopped:
                finish = "stop"
            elif len(tokens) - request.prompt_tokens >= params.max_tokens:
                finish = "length"
        if finish is not None:
            shown += text.finish()
            if text.stopped:  # the held tail completed a stop string
                finish = "stop"
        return shown, finish

    def _fail(self, request: Request, failure: StepFailed) -> Output:
        self._release(request)
        return Output(request, "", 0, "error", failure)

    def _expire(self, request: Request, now: float) -> Output:
        """The scheduler has dropped it already."""
        self._forget(request)
        failure = DeadlineExceeded(
            f"the deadline passed {now - request.arrived:.1f} s after the request came, with {len(request.answer)} tokens "
            "answered: allow more time or ask for less"
        )
        return Output(request, "", 0, "error", failure)

    def _release(self, request: Request) -> None:
        self.scheduler.remove(request)
        self._forget(request)

    def _forget(self, request: Request) -> None:
        self.sampler.forget(request)
        if self.speculator is not None:
            self.speculator.forget(request)
        del self._texts[request.id]


def _logprobs(sampled: Sequence[Sampled]) -> tuple[Logprobs, ...]:
    return tuple(each.logprobs for each in sampled if each.logprobs is not None)
