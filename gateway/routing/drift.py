"""How far requests are from a reference, and probabilities from what came true, each with what chance alone would do (pure).

Distributions: population stability index, sum of (q - p) ln(q / p) over ten parts with as many reference values each. Without
any drift it is about chi-squared with nine degrees, times 1/n + 1/N (Yurdakul 2018, "Statistical properties of the population
stability index"). So a threshold grows where few values would pass it by chance.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any, Literal

from gateway.config_routing import Drift
from gateway.routing.evidence.queries import Facts, Judged
from gateway.routing.tiers import PREDICTED

PARTS = 10
CHANCE = 4.27
"""Standard deviations that chance passes in one of 100,000 looks."""

Measure = Literal["rank", "difficulty", "input_tokens", "unfamiliar", "calibration"]
SPREAD: tuple[Literal["rank", "difficulty", "input_tokens"], ...] = ("rank", "difficulty", "input_tokens")


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one window. It has drifted when `value` is above `threshold`."""

    measure: Measure
    value: float
    threshold: float
    samples: int
    document: Mapping[str, Any]

    @property
    def drifted(self) -> bool:
        """Whether the operator should hear of it."""
        return self.value > self.threshold


def describe(facts: Iterable[Facts]) -> dict[str, Any]:
    """A reference: per measure the inner edges of ten parts and the share of values in each, and the share of unfamiliar."""
    rows = list(facts)
    document: dict[str, Any] = {"requests": len(rows)}
    for name in SPREAD:
        values = sorted(float(getattr(row, name)) for row in rows)
        edges = sorted({values[len(values) * part // PARTS] for part in range(1, PARTS)}) if values else []
        document[name] = {"edges": edges, "shares": _shares(values, edges)}
    document["unfamiliar"] = sum(row.unfamiliar for row in rows) / max(1, len(rows))
    return document


def is_reference(document: object) -> bool:
    """Whether something, such as a part of an artifact's card, can be compared with."""
    if not isinstance(document, Mapping):
        return False
    parts = [document[name] for name in SPREAD if name in document]
    return all(isinstance(part, Mapping) and {"edges", "shares"} <= part.keys() for part in parts) and all(
        isinstance(document.get(name), int | float) for name in ("requests", "unfamiliar")
    )


def compare(reference: Mapping[str, Any], facts: Iterable[Facts], rules: Drift) -> list[Finding]:
    """Every measure of a window against the reference; nothing when either has too few requests."""
    rows = list(facts)
    size, before = len(rows), int(reference["requests"])
    if min(size, before) < rules.least_requests:
        return []
    noise = 1.0 / size + 1.0 / before
    found = []
    for name in SPREAD:
        if name not in reference:
            continue
        edges, shares = reference[name]["edges"], reference[name]["shares"]
        now = _shares([float(getattr(row, name)) for row in rows], edges)
        index = stability_index(shares, now, before, size)
        limit = max(rules.stability, _chi_squared(len(edges)) * noise)
        found.append(Finding(name, index, limit, size, {"edges": edges, "reference": shares, "now": now}))
    was = float(reference["unfamiliar"])
    now_share = sum(row.unfamiliar for row in rows) / size
    middle = (was * before + now_share * size) / (before + size)
    limit = max(rules.unfamiliar, CHANCE * sqrt(middle * (1.0 - middle) * noise))
    found.append(Finding("unfamiliar", now_share - was, limit, size, {"reference": was, "now": now_share}))
    return found


def stability_index(reference: Sequence[float], now: Sequence[float], before: int, size: int) -> float:
    """The population stability index of two sets of shares; half a value is added to each part, so that none is empty."""
    total = 0.0
    for p_share, q_share in zip(reference, now, strict=True):
        p = (p_share * before + 0.5) / (before + 0.5 * len(reference))
        q = (q_share * size + 0.5) / (size + 0.5 * len(reference))
        total += (q - p) * log(q / p)
    return total


def calibration_error(labels: Iterable[Judged], rules: Drift) -> Finding | None:
    """Mean distance of predicted probability and mean label over ten parts with as many labels each; None for too few."""
    pairs = sorted((label.quality[PREDICTED[label.tier]], label.score) for label in labels if label.tier in PREDICTED)
    if len(pairs) < rules.least_labels:
        return None
    error = expected = variance = 0.0
    parts = []
    for part in range(PARTS):
        rows = pairs[len(pairs) * part // PARTS : len(pairs) * (part + 1) // PARTS]
        weight = len(rows) / len(pairs)
        predicted, came = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        spread = sqrt(max(predicted * (1.0 - predicted), 0.01) / len(rows))
        error += weight * abs(predicted - came)
        expected += weight * spread * sqrt(2.0 / pi)
        variance += (weight * spread) ** 2 * (1.0 - 2.0 / pi)
        parts.append([round(predicted, 4), round(came, 4)])
    limit = rules.calibration + expected + CHANCE * sqrt(variance)
    return Finding("calibration", error, limit, len(pairs), {"parts": parts, "by_chance": round(expected, 4)})


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return [count / max(1, len(values)) for count in counts]


def _chi_squared(degrees: int) -> float:
    """What chi-squared passes as seldom as CHANCE says (Wilson and Hilferty 1931)."""
    if degrees == 0:
        return 0.0
    part = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - part + CHANCE * sqrt(part)) ** 3)
