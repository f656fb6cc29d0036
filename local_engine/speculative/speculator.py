"""Speculation for the engine: asks for drafts before a step, verifies them behind it, and learns what they brought.

A drafter that raises is reported once and costs this step its drafts; after several failures in a row it is left alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from local_engine.model_runner import Computed
from local_engine.request import Request, Row
from local_engine.sampler import Sampler
from local_engine.scheduler import Chunk, Scheduler
from local_engine.speculative.adapt import Candidate, Planner
from local_engine.speculative.draft import draws
from local_engine.speculative.drafter import NO_DRAFT, Draft, Drafter, Seen, taps_of
from local_engine.speculative.verify import Run, verify

log = logging.getLogger("local_engine")
_MOST_FAILURES = 3
_MOST_DRAFTS = 192  # per step, over all requests: beyond, no machine gets its rows for nothing, and planning takes long
_KEPT_ROWS = 8  # streams kept for each that is needed: taking some of them out takes as long as a row of a step
_ANSWERS_PER_REST, _LONGEST_REST = 4, 3  # a plan that drafts nothing is kept for so many more steps


@dataclass(slots=True)
class SpeculationCounts:
    """Since the start: `drafts` steps of one request with drafts, their tokens, and how many of them were kept.

    `by_place[i]` counts the drafts whose token i (and all before it) was kept.
    """

    drafts: int = 0
    tokens: int = 0
    accepted: int = 0
    by_place: list[int] = field(default_factory=list)

    def observe(self, drafted: int, accepted: int) -> None:
        """One request's draft was verified."""
        self.drafts += 1
        self.tokens += drafted
        self.accepted += accepted
        self.by_place += [0] * (accepted - len(self.by_place))
        for place in range(accepted):
            self.by_place[place] += 1


class Speculator:
    """The drafters, the plan how much to ask of them, and the drafts under way. Used by the engine's thread only.

    Of the drafters one may be costly and one not. Where the one that costs nothing finds something that is likelier to
    be kept than what the other has brought so far, the other is not asked; where both have a draft, the better one is taken.
    """

    def __init__(self, drafters: Sequence[Drafter], most: int, timer: Callable[[], float] = time.perf_counter) -> None:
        self.drafters = tuple(drafters)
        self.taps = taps_of(drafters)
        self._free = next((drafter for drafter in drafters if not drafter.costly), None)
        self._costly = next((drafter for drafter in drafters if drafter.costly), None)
        if sum(drafter.costly for drafter in drafters) > 1 or len(drafters) > 2:
            raise ValueError("speculation takes at most one drafter that costs time and one that does not")
        self.most = most
        self.planner = Planner()
        self.counts = SpeculationCounts()
        self._timer = timer
        self._drafts: dict[int, Draft] = {}
        self._drafting = 0.0  # seconds spent on the drafts under way
        self._deepest = 0  # tokens of its longest draft
        self._unusual = 0.0  # those of them that are not to be expected the next time
        self._asked = 0  # for how many requests the costly drafter was
        self._begun = 0.0
        self._failures = 0
        self._proposed = False  # in the step under way, without failing
        self._resting = 0
        self._wanted = False  # whether the newest plan drafts for anybody, would but for a measurement, or had to ask
        self._quiet = 0

    @property
    def steps_ahead(self) -> int:
        """How many plain steps may be begun before the next plan: twice as many after each in a row that drafts nothing."""
        return 1 << min(self._quiet, 8)

    def propose(self, scheduler: Scheduler) -> None:
        """Put drafts on the running answers before a step is scheduled; the scheduler takes what there is room for."""
        self._drafts.clear()
        self._drafting = self._unusual = 0.0
        self._proposed = self._wanted = False
        self._asked = 0
        running = [request for request in scheduler.running if request.gap == 1 and request.answered]
        able = [request for request in running if request.params.max_tokens - request.answered > 1]
        self._resting -= 1
        if able and self._resting < 0 and self._failures < _MOST_FAILURES:
            begun = self._timer()
            try:
                self._propose(able, len(running))
                self._proposed = True
            except Exception:
                self._count_failure()
                self._asked = 0
                self._drafts.clear()
                for request in able:
                    request.drafts.clear()
            self._begun = self._timer()
            self._drafting = self._begun - begun
        else:
            self._begun = self._timer()
        if able:
            self._quiet = 0 if self._wanted or self._drafts else self._quiet + 1

    def verify(
        self, logits: Tensor, rows: Sequence[Row], sampler: Sampler, likeliest: Sequence[int] | None = None
    ) -> list[Run]:
        """What each request of the step gets; raises as sampling may."""
        runs = verify(logits, rows, sampler, self._drafts, likeliest)
        for run in runs:
            if run.drafted:
                draft, acceptance = self._drafts[run.request.id], self.planner.acceptance
                if draft.chances is None:
                    acceptance.observe(run.request, draft.kind, run.drafted, run.accepted)
                else:
                    acceptance.judge(draft.kind, draft.chances, run.drafted, run.accepted)
        return runs

    def observe(self, chunks: Sequence[Chunk], runs: Sequence[Run], computed: Computed) -> None:
        """The step's runs are in the answers; those that have ended hold no blocks any more. Never raises."""
        for run in runs:
            run.request.drafts.clear()
        if self._failures >= _MOST_FAILURES:
            return
        try:
            self._learn(chunks, runs, computed)
        except Exception:
            self._count_failure()
        else:
            if self._proposed:
                self._failures = 0

    def observe_ahead(self, chunks: Sequence[Chunk], steps: int, streams: Tensor | None) -> None:
        """So many plain steps of the chunks were computed at once; `streams` are the last one's. Never raises."""
        seconds = (self._timer() - self._begun) / steps
        for _ in range(steps):
            self.planner.observe_step(len(chunks), 0, len(chunks), seconds, 0.0)
        if streams is None or self._failures >= _MOST_FAILURES:
            return
        going = [(at, chunk.request) for at, chunk in enumerate(chunks) if chunk.request.table is not None]
        try:
            self._show([(request, len(request.tokens) - 2, at) for at, request in going], streams)
        except Exception:
            self._count_failure()
        else:
            if self._proposed:
                self._failures = 0

    def _learn(self, chunks: Sequence[Chunk], runs: Sequence[Run], computed: Computed) -> None:
        if all(chunk.length == 1 + chunk.drafts for chunk in chunks):  # prompts would hide what an answer's row costs
            self._learn_costs(chunks, runs)
        if computed.streams is not None:
            self._show_streams(chunks, {run.request.id: run.accepted for run in runs}, computed)

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self.planner.acceptance.forget(request)
        for drafter in self.drafters:
            drafter.forget(request)

    def _count_failure(self) -> None:
        self._failures += 1
        log.exception("drafting failed (%d in a row, given up at %d)", self._failures, _MOST_FAILURES)

    def _propose(self, able: list[Request], rows: int) -> None:
        each = min(self.most, max(1, _MOST_DRAFTS // rows))
        most = [min(each, request.params.max_tokens - request.answered - 1) for request in able]
        found = [NO_DRAFT] * len(able) if self._free is None else self._free.propose(able, most)
        free, asked = list(found), self._worth_asking(able, found, most) if self.planner.ready(rows) else []
        began = self._timer()
        if asked and self.planner.asks(len(asked)):
            self._ask(able, found, most, asked, rows)
        seconds = self._timer() - began
        likely = [at for at, draft in enumerate(found) if draft.tokens]
        wanted = self.planner.plan(rows, [Candidate.of(able[at], found[at]) for at in likely])
        if self._asked:
            gain = sum(
                self._gain(able[at], found[at], count, free[at], rows) for at, count in zip(likely, wanted, strict=True)
            )
            usual = self.planner.observe_asking(rows, self._asked, gain, self._deepest, seconds)
            self._unusual = seconds - usual
        self._wanted = bool(self._asked) or any(wanted) or self.planner.promising
        if not self._wanted:
            self._resting = min(rows // _ANSWERS_PER_REST, _LONGEST_REST)
        for at, count in zip(likely, wanted, strict=True):
            self._take(able[at], found[at], count)

    def _worth_asking(self, able: Sequence[Request], found: Sequence[Draft], most: Sequence[int]) -> list[int]:
        """For whom the costly drafter is expected to find something better than what was found for nothing."""
        if self._costly is None:
            return []
        survival, kind = self.planner.survival, self._costly.kind
        return [
            at
            for at, request in enumerate(able)
            if sum(survival(Candidate(request, most[at], kind))) > sum(survival(Candidate.of(request, found[at])))
        ]

    def _ask(
        self, able: Sequence[Request], found: list[Draft], most: Sequence[int], asked: Sequence[int], rows: int
    ) -> None:
        """Put the costly drafter's drafts in the place of worse ones in `found`."""
        assert self._costly is not None
        planner, price, least = self.planner, self.planner.price(rows), self.planner.least(rows, len(asked))
        wanted = [self._length(able[at], most[at], least) for at in asked]
        drafts = self._costly.propose([able[at] for at in asked], wanted, least)
        self._asked, self._deepest = len(asked), max(len(draft.tokens) for draft in drafts)
        for at, draft in zip(asked, drafts, strict=True):
            if draft.chances is not None:
                planner.acceptance.foresee(able[at], draft.kind, draft.chances)
            before, after = (planner.worth(Candidate.of(able[at], each), price) for each in (found[at], draft))
            if after > before:
                found[at] = draft

    def _length(self, request: Request, most: int, least: float) -> int:
        """Tokens to ask for. Where they are drawn, what was drawn must not decide whether it is used: its shares would not
        be those it was drawn from. So the length is fixed before."""
        if not draws(request.params):
            return most
        assert self._costly is not None
        survival = self.planner.survival(Candidate(request, most, self._costly.kind))
        return max(1, sum(chance >= least for chance in survival))

    def _gain(self, request: Request, draft: Draft, count: int, free: Draft, rows: int) -> float:
        """Tokens that the first `count` of a draft are worth beyond their rows and what was found for nothing."""
        if draft is free:
            return 0.0
        price, survival = self.planner.price(rows), self.planner.survival(Candidate.of(request, draft))
        worth = sum(survival[:count]) - count * price
        return max(0.0, worth - self.planner.worth(Candidate.of(request, free), price))

    def _take(self, request: Request, draft: Draft, count: int) -> None:
        request.drafts = list(draft.tokens[:count])
        if request.drafts:
            self._drafts[request.id] = draft

    def _learn_costs(self, chunks: Sequence[Chunk], runs: Sequence[Run]) -> None:
        seconds = self._timer() - self._begun
        drafting = self._drafting - self._unusual if self._drafts or self._asked else 0.0
        drafted = sum(chunk.drafts for chunk in chunks)
        tokens = sum(len(run.sampled) for run in runs)
        self.planner.observe_step(len(chunks), drafted, tokens, seconds, drafting)

    def _show_streams(self, chunks: Sequence[Chunk], accepted: dict[int, int], computed: Computed) -> None:
        assert computed.streams is not None
        going = [chunk for chunk in chunks if chunk.request.table is not None]
        known = [each.length - each.drafts + accepted.get(each.request.id, 0) - 1 for each in going]
        self._show(
            [
                (each.request, each.start + last, computed.firsts[each.request.id] + last)
                for each, last in zip(going, known, strict=True)
            ],
            computed.streams,
        )

    def _show(self, newest: Sequence[tuple[Request, int, int]], streams: Tensor) -> None:
        """(request, position, row of `streams`) of each last known token."""
        if not newest:
            return
        rows = [row for _, _, row in newest]
        if streams.device.type != "cpu" or len(streams) > _KEPT_ROWS * len(rows):
            # A copy: the next steps of a GPU overwrite them, and a prompt's would all be kept for one.
            streams, rows = streams[rows], list(range(len(rows)))
        seen = [Seen(request, at, streams, row) for (request, at, _), row in zip(newest, rows, strict=True)]
        for drafter in self.drafters:
            if drafter.taps:
                drafter.observe(seen)
