"""Whether an artifact is worse, better or cheaper than another, by what its requests cost and how their answers did (pure).

Four comparisons share the error that the confidence allows. Each may be looked at again and again (`sequential`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.config_routing import Rollback
from gateway.routing.evidence.queries import Graded, Routed
from gateway.routing.sequential import Bounds, Seen, apart, bounded, paired, unbounded

COMPARISONS = 4

Outcome = Literal["keep", "rollback", "promote"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Requests and labelled answers of two artifacts, oldest first. `second` is judged against `first`.

    `together` says that both served the same time, so that they can be compared side by side.
    """

    first: str
    second: str
    requests: Sequence[Routed]
    grades: Sequence[Graded]
    together: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second less first: mean quality, share of failed requests, cost (pico-USD) and seconds per request.

    `labels` and `requests` count those of (first, second); `cost_before` and `seconds_before` are the first one's means.
    """

    quality: Bounds
    failures: Bounds
    cost: Bounds
    seconds: Bounds
    labels: tuple[int, int]
    requests: tuple[int, int]
    cost_before: float
    seconds_before: float

    def document(self) -> dict[str, Any]:
        """For the row of a change."""
        measures = {name: getattr(self, name).document() for name in ("quality", "failures", "cost", "seconds")}
        return {**measures, "labels": list(self.labels), "requests": list(self.requests)}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to become of the second artifact, and why, in one sentence."""

    outcome: Outcome
    reason: str
    comparison: Comparison


def compare(evidence: Evidence, rules: Rollback) -> Comparison:
    """All four differences with bounds that hold at every look."""
    error = (1.0 - rules.confidence) / COMPARISONS
    grades = [Seen(grade.artifact == evidence.second, grade.score) for grade in evidence.grades]
    served = [(request.artifact == evidence.second, request) for request in evidence.requests]
    failures = [Seen(second, float(request.failed)) for second, request in served]
    costs = [Seen(second, float(request.cost)) for second, request in served if not request.failed]
    seconds = [Seen(second, request.seconds) for second, request in served if not request.failed]
    return Comparison(
        quality=_bounded(grades, error, evidence.together),
        failures=_bounded(failures, error, evidence.together),
        cost=_unbounded(costs, error, evidence.together),
        seconds=_unbounded(seconds, error, evidence.together),
        labels=_counts(grades),
        requests=_counts(failures),
        cost_before=_mean_of_first(costs),
        seconds_before=_mean_of_first(seconds),
    )


def judge(evidence: Evidence, rules: Rollback) -> Judgement:
    """Roll back what is worse by more than a margin; promote, if asked for, what is not worse and is better or cheaper."""
    found = compare(evidence, rules)
    worse = _worse(found, evidence, rules)
    if worse is not None:
        return Judgement("rollback", worse, found)
    enough = min(found.labels) >= rules.least_labels and min(found.requests) >= rules.least_requests
    if rules.promote and evidence.together and enough and _not_worse(found, rules):
        if found.quality.low > 0.0:
            return Judgement("promote", f"{evidence.second} answers better: {_quality(found)}", found)
        if found.cost.high < 0.0:
            reason = f"{evidence.second} costs less ({_ratio(found.cost, found.cost_before)}) at the same quality"
            return Judgement("promote", f"{reason}: {_quality(found)}", found)
    return Judgement("keep", f"not decided: {_quality(found)}", found)


def _worse(found: Comparison, evidence: Evidence, rules: Rollback) -> str | None:
    """Why the second one is worse; None while that is not proved."""
    name = evidence.second
    if min(found.labels) >= rules.least_labels and found.quality.high < -rules.margin:
        return f"{name} answers worse by more than {rules.margin:g}: {_quality(found)}"
    if min(found.requests) < rules.least_requests:
        return None
    if found.failures.low > rules.error_margin:
        bounds = f"{found.failures.mean:+.3f} ({found.failures.low:+.3f} to {found.failures.high:+.3f})"
        return f"more requests of {name} fail: a share of {bounds}, in {found.requests[1]} requests"
    if found.seconds.low > rules.latency_margin * found.seconds_before:
        return f"requests of {name} take longer: {_ratio(found.seconds, found.seconds_before)}"
    if found.cost.low > rules.cost_margin * found.cost_before and found.quality.low <= 0.0:
        dearer = _ratio(found.cost, found.cost_before)
        return f"{name} costs more ({dearer}), and its answers are not proved better: {_quality(found)}"
    return None


def _not_worse(found: Comparison, rules: Rollback) -> bool:
    return (
        found.quality.low > -rules.margin
        and found.failures.high < rules.error_margin
        and found.seconds.high < max(rules.latency_margin, 0.1) * found.seconds_before
    )


def _bounded(stream: Sequence[Seen], error: float, together: bool) -> Bounds:
    if together:
        return bounded(paired(stream), -1.0, 1.0, error)
    first, second = _split(stream)
    return apart(bounded(second, 0.0, 1.0, error / 2.0), bounded(first, 0.0, 1.0, error / 2.0))


def _unbounded(stream: Sequence[Seen], error: float, together: bool) -> Bounds:
    if together:
        return unbounded(paired(stream), error)
    first, second = _split(stream)
    return apart(unbounded(second, error / 2.0), unbounded(first, error / 2.0))


def _split(stream: Sequence[Seen]) -> tuple[list[float], list[float]]:
    return [seen.value for seen in stream if not seen.second], [seen.value for seen in stream if seen.second]


def _counts(stream: Sequence[Seen]) -> tuple[int, int]:
    second = sum(seen.second for seen in stream)
    return len(stream) - second, second


def _mean_of_first(stream: Sequence[Seen]) -> float:
    first = _split(stream)[0]
    return sum(first) / len(first) if first else 0.0


def _quality(found: Comparison) -> str:
    bounds = found.quality
    first, second = found.labels
    interval = f"{bounds.low:+.3f} to {bounds.high:+.3f}"
    return f"difference of quality {bounds.mean:+.3f} ({interval}), {second} labels against {first}"


def _ratio(difference: Bounds, before: float) -> str:
    if before <= 0.0:
        return f"{difference.mean:+.3g}"
    low, high = (100.0 * each / before for each in (difference.low, difference.high))
    return f"{100.0 * difference.mean / before:+.0f} % ({low:+.0f} to {high:+.0f})"
