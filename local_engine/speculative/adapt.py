"""How many tokens to draft for whom: as many as make the next step give most tokens per second, zero included.

Three things are learned while answering: what a step with so many rows takes, how often drafts are kept, and what the
drafts of a drafter that takes time bring beyond that time. A plan weighs them; an account of seconds bounds what
speculation costs where it does not pay, to a few percent: what a speculative step loses against plain ones is taken
from it, what it gains and one percent of plain steps are paid in, and without credit nothing is drafted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local_engine.request import Request
from local_engine.speculative.acceptance import Acceptance
from local_engine.speculative.asking import Asking, Probes
from local_engine.speculative.drafter import Draft
from local_engine.speculative.step_costs import StepCosts

_GAIN_WANTED = 1.02  # plans that promise less are not worth the noise, and the best of many looks better than it is:
_GAIN_PER_ROW = 0.01  # so the more for each answer more, up to
_MOST_GAIN_ROWS = 4  # for it has to be found likely before anything is known
_GAIN_RATE = 0.1  # how fast the gain of plans is averaged
_PERCENT = 0.01  # of plain time that may be spent on trying
_FIRST_CREDIT = 2.0  # plain steps
_MOST_CREDIT = 8.0
_REFRESH = 64  # times the gain believed in: speculative steps after which a plain one is measured again
_PROBE = 2  # tokens
_PRICED = 4  # rows over which the price of one is averaged
_CHEAPEST, _DEAREST = 0.02, 0.9
_PATIENCE = 16  # rows more without a better plan, after which the search ends


@dataclass(frozen=True, slots=True)
class Candidate:
    """At most `most` tokens can be drafted for `request`; `kind` names the way, `chances` what the drafter gives each."""

    request: Request
    most: int
    kind: str
    chances: tuple[float, ...] | None = None

    @classmethod
    def of(cls, request: Request, draft: Draft) -> Candidate:
        """What has been drafted."""
        return cls(request, len(draft.tokens), draft.kind, draft.chances)


class Planner:
    """Chooses draft lengths; `rows` is what a step without drafts computes, one per running answer."""

    def __init__(self) -> None:
        self.steps = StepCosts()
        self.acceptance = Acceptance()
        self.asking: dict[int, Asking] = {}  # by the number of requests asked for, roughly
        self.promising = False  # whether the newest plan that weighed drafts chose some
        self._credit: float | None = None  # seconds; None until a plain step was measured
        self._since_plain = 0
        self._gain = 0.0  # of plans, as a share of plain speed, at most 1
        self._probes = Probes()

    def ready(self, rows: int) -> bool:
        """Whether drafts may be made: not before it is known what a plain step takes, nor when they have cost too much."""
        return not self._measuring(rows) and not self._exhausted

    def asks(self, requests: int) -> bool:
        """Whether to ask the drafter that takes time: it has brought more than that lately, or it is time to try again."""
        asking = self._asking(requests)
        return asking.pays or (self._may_try and asking.probes.due())

    def price(self, rows: int) -> float:
        """Chance of being kept from which on a drafted token is worth its row."""
        further = self.steps.expect(rows + _PRICED) - self.steps.expect(rows)
        return _bounded(further / _PRICED * rows / self.steps.expect(rows))

    def least(self, rows: int, requests: int) -> float:
        """Chance from which on it is worth its row and its share of what drafting for so many requests takes."""
        return _bounded(self.price(rows) + rows * self._asking(requests).per_token / requests)

    def worth(self, candidate: Candidate, price: float) -> float:
        """Tokens that a draft is expected to bring beyond what its rows cost."""
        return sum(chance - price for chance in self.survival(candidate) if chance > price)

    def survival(self, candidate: Candidate) -> list[float]:
        """Chance that the first, the first two, ... tokens are all kept."""
        if candidate.chances is not None:
            return self.acceptance.believed(candidate.kind, candidate.chances[: candidate.most])
        return self.acceptance.survival(candidate.request, candidate.kind, candidate.most)

    def plan(self, rows: int, candidates: Sequence[Candidate]) -> list[int]:
        """Tokens to draft for each candidate; what drafting them took is spent already."""
        nothing = [0] * len(candidates)
        if self._measuring(rows):
            return nothing
        self.promising = False
        if not candidates:
            return nothing
        ranked = self._ranked(candidates)
        count, gain = self._best(rows, [chance for chance, _, _ in ranked])
        self._gain += _GAIN_RATE * (min(1.0, gain) - self._gain)
        self.promising = count > 0 and not self._exhausted
        if self.promising:
            self._probes.restart()
        elif not count and self._may_try and self._probes.due():
            count = _PROBE
        elif count:
            count = 0
        return _counts(ranked[:count], nothing)

    def observe_asking(self, rows: int, requests: int, gain: float, depth: int, seconds: float) -> float:
        """The drafter that takes time was asked for so many requests, and drafted up to `depth` tokens.

        Those that are computed are worth `gain` tokens beyond their rows and beyond the other drafts. Returns what of the
        seconds is usual: a long prompt's catching up is not.
        """
        plain = self.steps.expect(rows)
        return plain * self._asking(requests).observe(gain / rows, depth, seconds / plain, requests)

    def observe_step(self, rows: int, drafts: int, tokens: int, seconds: float, drafting: float) -> None:
        """A step of `rows` answers and `drafts` drafted tokens gave `tokens` tokens; drafting took `drafting` seconds."""
        self.steps.observe(rows + drafts, seconds)
        plain = self.steps.expect(rows) if self.steps.times(rows) else seconds
        if self._credit is None:
            self._credit = _FIRST_CREDIT * plain
        if drafts:
            self._since_plain += 1
        else:
            self._since_plain = 0
        if drafts or drafting:
            self._credit += plain * tokens / rows - seconds - drafting
        else:
            self._credit += _PERCENT * seconds
        self._credit = min(_MOST_CREDIT * plain, max(-_MOST_CREDIT * plain, self._credit))

    def _measuring(self, rows: int) -> bool:
        """Whether to learn first what a plain step takes: the sooner again the less is gained or was measured."""
        return self._since_plain > min(_REFRESH * self._gain, 2 * self.steps.times(rows)) or not self.steps.times(rows)

    @property
    def _exhausted(self) -> bool:
        return self._credit is not None and self._credit < 0

    @property
    def _may_try(self) -> bool:
        return self._credit is not None and self._credit > 0

    def _asking(self, requests: int) -> Asking:
        return self.asking.setdefault(requests.bit_length(), Asking())

    def _best(self, rows: int, chances: Sequence[float]) -> tuple[int, float]:
        """(how many of the likeliest tokens to compute, what is gained by it as a share of plain speed)."""
        plain = rows / self.steps.expect(rows)
        best_count, best_rate = 0, plain * (_GAIN_WANTED + _GAIN_PER_ROW * min(rows - 1, _MOST_GAIN_ROWS))
        expected = float(rows)
        for count, chance in enumerate(chances[: self.steps.farthest - rows], start=1):
            expected += chance
            rate = expected / self.steps.expect(rows + count)
            if rate > best_rate:
                best_count, best_rate = count, rate
            elif count > best_count + _PATIENCE:
                break
        return best_count, best_rate / plain - 1 if best_count else 0.0

    def _ranked(self, candidates: Sequence[Candidate]) -> list[tuple[float, int, int]]:
        """(chance, candidate, place) of all tokens that could be drafted, likeliest first; a request's stay in order."""
        ranked = [
            (chance, index, place)
            for index, each in enumerate(candidates)
            for place, chance in enumerate(self.survival(each))
        ]
        ranked.sort(key=lambda entry: (-entry[0], entry[2]))
        return ranked


def _bounded(chance: float) -> float:
    return min(_DEAREST, max(_CHEAPEST, chance))


def _counts(chosen: Sequence[tuple[float, int, int]], nothing: list[int]) -> list[int]:
    """How many of the chosen tokens are whose; `nothing` is filled."""
    for _, index, _ in chosen:
        nothing[index] += 1
    return nothing
