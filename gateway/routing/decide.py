"""Decides which deployments may answer and in which order (pure: no clock, no I/O, no chance).

Hard conditions come first (`conditions`). An `auto` request is then answered by the candidate with the best value (`worth`):
what its predicted quality is worth less its expected price. The worth is the one that keeps `min_quality` of the best quality
on average over traffic; where none is known, or the policy says so, each prompt keeps that floor by itself and the cheapest
above it answers. What is failing, late or too much of a good thing stands behind the others and is never left out for that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from math import inf
from operator import attrgetter

from gateway.routing.ask import Ask, Candidate, Decision, Rejected, Score
from gateway.routing.conditions import LATE, admit
from gateway.routing.worth import RANK, by_time, by_worth, shared, size

_burden_of = attrgetter("burden")


def decide_route(ask: Ask, score: Score | None) -> Decision:
    """Order the candidates for one request. An empty `candidates` means that no deployment satisfies the conditions."""
    possible, rejected = admit(ask, score)
    if not possible:
        return Decision((), tuple(rejected), "no candidate", None, score)
    if ask.sla is not None and ask.sla.otherwise == "reject":
        possible = _in_time(possible, rejected)
    if not ask.auto:
        ordered = shared(possible, ask.spread)
        reason = f"asked for {'tier ' + ask.tier if ask.tier else ordered[0].model.name}"
        return Decision(_limited(ordered, ask), tuple(rejected), reason, None, score)
    return _decide_auto(possible, rejected, ask, score)


def replace_dear(decision: Decision, too_dear: Candidate, instead: Candidate) -> Decision:
    """The same decision, saying that the budget did not allow the first choice."""
    reason = f"over budget: {instead.model.name} instead of {too_dear.model.name}"
    return dataclasses.replace(decision, reason=reason, too_dear=too_dear.model.name)


def _decide_auto(possible: list[Candidate], rejected: list[Rejected], ask: Ask, score: Score | None) -> Decision:
    best = max([candidate.quality or 0.0 for candidate in possible])
    floor: float | None = None
    worth: float | None = None
    kept, strange, sent_up = possible, _strange(ask, score), False
    if ask.mode == "quick":
        worth, reason = 0.0, "quick: cheapest"
    elif ask.mode == "deep":
        top = max(RANK[candidate.model.tier] for candidate in possible)
        kept = [candidate for candidate in possible if RANK[candidate.model.tier] == top]
        lower = [candidate for candidate in possible if RANK[candidate.model.tier] < top]
        rejected = rejected + [_left(candidate, "deep asks for the best tier") for candidate in lower]
        worth, reason = inf, "deep: best tier"
    elif ask.objective == "quality":
        worth, reason = inf, "objective quality: best"
    elif strange is not None and not ask.unfamiliar_spent:
        worth, reason, sent_up = inf, f"{strange}: {_only(possible) or 'best'}", True
    elif ask.worth is not None and ask.objective == "cost":
        worth, reason = _worth_here(ask.worth, ask, score), ""
    else:
        floor, reason = ask.min_quality * ask.saving * best, ""
        kept = [candidate for candidate in possible if (candidate.quality or 0.0) >= floor]
        rejected = rejected + [
            _left(each, f"predicted quality {each.quality or 0.0:.2f} is below the floor {floor:.2f}")
            for each in possible
            if (each.quality or 0.0) < floor
        ]
    if ask.objective == "latency" and not reason:
        order = partial(by_time, spread=ask.spread)
    else:
        upper_first = ask.mode == "deep" or ask.objective == "quality"
        order = partial(by_worth, worth=worth or 0.0, spread=ask.spread, upper_first=upper_first)
    ordered = order(kept)
    chosen = _limited(ordered, ask)
    if not reason:
        reason = _reason(possible, ordered[0], best, floor, ask)
        reason += f"; {strange}: the key's share of these is used up" if strange is not None else ""
    return Decision(
        chosen,
        tuple(rejected),
        reason + _passed_over(ordered, order),
        floor,
        score,
        _others(possible, chosen),
        worth=worth,
        unfamiliar=sent_up,
    )


def _strange(ask: Ask, score: Score | None) -> str | None:
    """In what the prompt is unlike the training data, where the policy sends such prompts to the best."""
    if score is None or not score.out_of_distribution or ask.unfamiliar != "best":
        return None
    return f"unfamiliar prompt ({', '.join(score.unfamiliar)})"


def _worth_here(worth: float, ask: Ask, score: Score | None) -> float:
    """What a unit of quality is worth in this request: by its size, and less where a budget is nearly used up."""
    if ask.saving <= 0.0:
        return 0.0  # infinite worth times nothing is not a number
    if score is None:
        return worth * ask.saving
    written = round(score.expected_output_tokens["premium"])
    if ask.output_tokens:
        written = min(written, ask.output_tokens)
    return worth * size(ask.input_tokens, written) * ask.saving


def _reason(possible: list[Candidate], first: Candidate, best: float, floor: float | None, ask: Ask) -> str:
    if only := _only(possible):
        return f"{first.model.tier}: {only}, quality {first.quality or 0.0:.2f}"
    kept = f"floor {floor:.2f}" if floor is not None else f"{ask.min_quality:g} kept on average"
    if ask.saving < 1.0:
        kept += f", a budget is nearly used up: quality counts {ask.saving:.0%}"
    what = "fastest, " if ask.objective == "latency" else ""
    return f"{first.model.tier}: {what}quality {first.quality or 0.0:.2f} of best {best:.2f}, {kept}"


def _only(possible: list[Candidate]) -> str | None:
    """Says that there was nothing to choose from, when one model alone may answer: it keeps no promise of quality by that."""
    names = {candidate.model.name for candidate in possible}
    return f"only {names.pop()} may answer" if len(names) == 1 else None


def _passed_over(ordered: list[Candidate], order: Callable[[list[Candidate]], list[Candidate]]) -> str:
    """Who would be asked first if nothing spoke against it, when that is somebody else; else what speaks against the first."""
    if not any(map(_burden_of, ordered)):
        return ""
    if against := ordered[0].behind:
        late = all(candidate.burden & LATE for candidate in ordered)
        return f"; none is in time: {against}" if late else f"; although {against}"
    wanted = order([dataclasses.replace(candidate, burden=0) for candidate in ordered])[0]
    if wanted.model is ordered[0].model or wanted.behind is None:
        return ""
    return f"; not {wanted.model.name}: {wanted.behind}"


def _in_time(possible: list[Candidate], rejected: list[Rejected]) -> list[Candidate]:
    """Without those that are expected to be late, unless all of them are."""
    fast = [candidate for candidate in possible if not candidate.burden & LATE]
    if not fast:
        return possible
    rejected.extend(_left(each, each.behind or "late") for each in possible if each.burden & LATE)
    return fast


def _left(candidate: Candidate, reason: str) -> Rejected:
    return Rejected(candidate.model.name, candidate.model.tier, reason, qualified=True)


def _others(possible: list[Candidate], chosen: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    if len(possible) == len(chosen):
        return ()
    taken = {candidate.model.index for candidate in chosen}
    return tuple(candidate for candidate in possible if candidate.model.index not in taken)


def _limited(candidates: list[Candidate], ask: Ask) -> tuple[Candidate, ...]:
    return tuple(candidates if ask.fallbacks else candidates[:1])
