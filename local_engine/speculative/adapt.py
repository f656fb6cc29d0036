"""How many tokens to draft for whom: as many as make the next step give most tokens per second, zero included.

Three things are learned while answering: what a step with so many rows takes, what drafting takes, and how often drafts
are kept. A plan weighs them; an account of seconds bounds what speculation costs where it does not pay, to a few
percent: what a speculative step loses against plain ones is taken from it, what it gains and one percent of plain steps
are paid in, and without credit nothing is drafted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from local_engine.request import Request
from local_engine.speculative.step_costs import StepCosts

_GAIN_WANTED = 1.02  # plans that promise less are not worth the noise, and the best of many looks better than it is:
_GAIN_PER_ROW = 0.01  # so the more for each answer more, up to
_MOST_GAIN_ROWS = 4  # for it has to be found likely before anything is known
_PERCENT = 0.01  # of plain time that may be spent on trying
_FIRST_CREDIT = 2.0  # plain steps
_MOST_CREDIT = 8.0
_REFRESH = 64  # times the gain believed in: speculative steps after which a plain one is measured again
_FIRST_PROBE, _LAST_PROBE = 16, 1024  # steps between tries while speculation does not pay
_PROBE = 2  # tokens
_OUTLIER = 1.5  # drafting that takes longer than so many times the expected counts as if it had taken that
_PATIENCE = 16  # rows more without a better plan, after which the search ends
_MEMORY = 0.96  # weight of older drafts against a new one
_FIRST_RATE = 0.6  # acceptance before anything is known
_FIRST_WEIGHT = 4.0
_REQUEST_WEIGHT = 6.0  # tries after which a request's own record counts as much as everybody's


@dataclass(slots=True)
class Rate:
    """How often something tried succeeded, older tries forgotten slowly."""

    tried: float = _FIRST_WEIGHT
    kept: float = _FIRST_WEIGHT * _FIRST_RATE

    def observe(self, kept: bool) -> None:
        """One more try."""
        self.tried = self.tried * _MEMORY + 1.0
        self.kept = self.kept * _MEMORY + kept

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self.kept / self.tried


@dataclass(slots=True)
class Acceptance:
    """Chance that a draft's token is kept if those before it are: by kind and position, and per request and kind."""

    _by_place: dict[tuple[str, int], Rate] = field(default_factory=dict)
    _by_request: dict[int, dict[str, Rate]] = field(default_factory=dict)

    def observe(self, request: Request, kind: str, drafted: int, accepted: int) -> None:
        """The first `accepted` of `drafted` tokens were kept; those behind the first rejected one say nothing."""
        mine = self._by_request.setdefault(request.id, {}).setdefault(kind, Rate(0.0, 0.0))
        for place in range(min(drafted, accepted + 1)):
            self._by_place.setdefault((kind, place), Rate()).observe(place < accepted)
            mine.observe(place < accepted)

    def survival(self, request: Request, kind: str, count: int) -> list[float]:
        """Chance that the first, the first two, ... `count` tokens are all kept."""
        mine = self._by_request.get(request.id, {}).get(kind)
        chances, product, rate = [], 1.0, _FIRST_RATE
        for place in range(count):
            general = self._by_place.get((kind, place))
            if general is not None:
                rate = general.value
            chance = rate
            if mine is not None:
                chance = (mine.kept + _REQUEST_WEIGHT * rate) / (mine.tried + _REQUEST_WEIGHT)
            product *= chance
            chances.append(product)
        return chances

    def forget(self, request: Request) -> None:
        """The request has ended."""
        self._by_request.pop(request.id, None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """At most `most` tokens could be drafted for `request`, in the way `kind` names; `costly`: drafting them takes time."""

    request: Request
    most: int
    kind: str
    costly: bool = False


class Planner:
    """Chooses draft lengths; `rows` is what a step without drafts computes, one per running answer."""

    def __init__(self) -> None:
        self.steps = StepCosts()
        self.drafting: dict[int, StepCosts] = {}  # by the number of requests drafted for, roughly
        self.acceptance = Acceptance()
        self.promising = False  # whether the newest plan that weighed drafts chose some
        self._credit: float | None = None  # seconds; None until a plain step was measured
        self._since_plain = 0
        self._plain_steps = 0
        self._gain = 0.0  # of the newest plan that drafts, as a share of plain speed, at most 1
        self._until_probe = 0
        self._probe_pause = _FIRST_PROBE

    def plan(self, rows: int, candidates: Sequence[Candidate]) -> list[int]:
        """Tokens to draft for each candidate; drafting takes time by the longest costly draft."""
        nothing = [0] * len(candidates)
        if not candidates or not self.steps.known(rows) or self._since_plain > self._trust():
            return nothing  # first learn what a plain step takes
        self.promising = False
        ranked = self._ranked(candidates)
        costly = sum(each.costly for each in candidates)
        wanted = _GAIN_WANTED + _GAIN_PER_ROW * min(rows - 1, _MOST_GAIN_ROWS)
        best_count, best_rate = 0, rows / self.steps.expect(rows) * wanted
        expected, depth = float(rows), 0
        for count, (chance, index, place) in enumerate(ranked[: self.steps.farthest - rows], start=1):
            expected += chance
            if candidates[index].costly:
                depth = max(depth, place + 1)
            seconds = self.steps.expect(rows + count) + (self._drafting(costly, depth) if depth else 0.0)
            if expected / seconds > best_rate:
                best_count, best_rate = count, expected / seconds
            elif count > best_count + _PATIENCE:
                break
        if not best_count:
            return self._probe(ranked, nothing)
        if self._credit is not None and self._credit < 0:
            return nothing
        self._gain = min(1.0, best_rate * self.steps.expect(rows) / rows - 1)
        self._probe_pause = _FIRST_PROBE
        self.promising = True
        return _counts(ranked[:best_count], nothing)

    def observe_drafting(self, requests: int, depth: int, seconds: float) -> float:
        """Drafting up to `depth` tokens took so long. Returns what of it is usual: a long prompt's catching up is not."""
        usual = min(seconds, _OUTLIER * self._drafting(requests, depth)) if self.drafting else seconds
        self.drafting.setdefault(requests.bit_length(), StepCosts()).observe(depth, seconds)
        return usual

    def observe_step(self, rows: int, drafts: int, tokens: int, seconds: float, drafting: float) -> None:
        """A step of `rows` answers and `drafts` drafted tokens gave `tokens` tokens; drafting took `drafting` seconds."""
        self.steps.observe(rows + drafts, seconds)
        plain = self.steps.expect(rows) if self.steps.known(rows) else seconds
        if self._credit is None:
            self._credit = _FIRST_CREDIT * plain
        if drafts or drafting:
            self._since_plain += 1
            self._credit += plain * tokens / rows - seconds - drafting
        else:
            self._since_plain = 0
            self._plain_steps += 1
            self._until_probe -= 1
            self._credit += _PERCENT * seconds
        self._credit = min(self._credit, _MOST_CREDIT * plain)

    def _trust(self) -> float:
        """Speculative steps after which a plain one is measured again: few while few were, or where little is gained."""
        return min(_REFRESH * self._gain, 2 * self._plain_steps)

    def _ranked(self, candidates: Sequence[Candidate]) -> list[tuple[float, int, int]]:
        """(chance, candidate, place) of all tokens that could be drafted, likeliest first; a request's stay in order."""
        ranked = [
            (chance, index, place)
            for index, each in enumerate(candidates)
            for place, chance in enumerate(self.acceptance.survival(each.request, each.kind, each.most))
        ]
        ranked.sort(key=lambda entry: (-entry[0], entry[2]))
        return ranked

    def _drafting(self, requests: int, depth: int) -> float:
        """Expected seconds: at most in proportion to what fewer requests take, or a slow draft would be believed for ever.

        For a number never measured they are what another takes; before the first draft none for one token, which makes
        that worth a try.
        """
        if not self.drafting:
            return 0.0 if depth == 1 else math.inf
        size = requests.bit_length()
        known = size in self.drafting
        return min(
            costs.expect(depth) * (1 << max(0, size - other) if known else 1) for other, costs in self.drafting.items()
        )

    def _probe(self, ranked: Sequence[tuple[float, int, int]], nothing: list[int]) -> list[int]:
        """Now and then a few likely tokens, or nobody would notice that it pays again."""
        if self._until_probe > 0 or self._credit is None or self._credit <= 0:
            return nothing
        self._until_probe = self._probe_pause
        self._probe_pause = min(2 * self._probe_pause, _LAST_PROBE)
        return _counts(ranked[:_PROBE], nothing)


def _counts(chosen: Sequence[tuple[float, int, int]], nothing: list[int]) -> list[int]:
    """How many of the chosen tokens are whose; `nothing` is filled."""
    for _, index, _ in chosen:
        nothing[index] += 1
    return nothing
