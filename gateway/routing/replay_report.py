"""What a replay says in numbers: money, quality with an interval, time, and who would answer instead of whom (pure)."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import Any

import numpy as np

from gateway.money import PICO_PER_USD
from gateway.routing.past.columns import Doubles, Past, Side
from gateway.routing.replay import Replayed

NINETY = 1.645
"""Half width of an interval of 90 %, in standard deviations; the artifact's own intervals are nominally of 90 % too."""
INTERVAL = (
    "90 %: chance over requests (normal) and error of the artifact (its own intervals, taken as shared by all requests), added "
    "in squares"
)
EXAMPLES = 10


def report(past: Past, replayed: Replayed) -> dict[str, Any]:
    """Everything but the examples and what was left out; JSON-ready, money in USD."""
    before, after = replayed.before, replayed.after
    answerable = np.array([name is not None for name in after.model], dtype=bool)
    moved = moved_places(replayed)
    return {
        "cost_usd": _costs(past, before, after),
        "quality": _qualities(before, after, replayed.best),
        "seconds": {
            "measured": _times(past.seconds),
            "as_routed": _times(before.seconds),
            "replayed": _times(after.seconds),
        },
        "moved": {"requests": len(moved), "share": _share(len(moved), len(past))},
        "models": _models(past, after),
        "moves": _moves(replayed, moved),
        "nobody_may_answer": int(np.count_nonzero(~answerable)),
    }


def moved_places(replayed: Replayed) -> list[int]:
    """The requests that another model would be asked for first."""
    pairs = zip(replayed.before.model, replayed.after.model, strict=True)
    return [place for place, (was, now) in enumerate(pairs) if now is not None and was != now]


def example_places(replayed: Replayed, count: int = EXAMPLES) -> list[int]:
    """Moved requests to look at: every kind of move has its turn, and within one those with the largest change of cost."""
    kinds: dict[tuple[str | None, str | None], list[int]] = {}
    for place in moved_places(replayed):
        kinds.setdefault((replayed.before.model[place], replayed.after.model[place]), []).append(place)
    change = np.nan_to_num(np.abs(replayed.after.cost - replayed.before.cost))
    queues = [
        sorted(places, key=lambda place: (-change[place], place))
        for _, places in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    ]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue]
    return chosen[:count]


def example(past: Past, replayed: Replayed, place: int, why: str) -> dict[str, Any]:
    """One moved request."""
    before, after = replayed.before, replayed.after
    return {
        "request_id": past.ids[place],
        "from": before.model[place],
        "to": after.model[place],
        "why": why,
        "quality": [_number(side.quality[place]) for side in (before, after)],
        "cost_usd": [_usd(side.cost[place]) for side in (before, after)],
    }


def _costs(past: Past, before: Side, after: Side) -> dict[str, Any]:
    """Sums over requests whose cost is known on both sides, beside what was booked."""
    both = np.isfinite(before.cost) & np.isfinite(after.cost)
    old, new = float(before.cost[both].sum()), float(after.cost[both].sum())
    return {
        "booked": _usd(float(past.cost.sum())),
        "charged": _usd(float(past.charge.sum())),
        "as_routed": _usd(old),
        "replayed": _usd(new),
        "change": _usd(new - old),
        "change_share": _number((new - old) / old) if old else None,
        "requests": int(both.sum()),
    }


def _qualities(before: Side, after: Side, best: Doubles) -> dict[str, Any]:
    known = np.isfinite(before.quality) & np.isfinite(after.quality)
    if not known.any():
        return {"requests": 0, "interval": INTERVAL}
    old, new, most = before.quality[known], after.quality[known], best[known]
    moved = old != new
    error = np.where(moved, np.hypot(_half(before)[known], _half(after)[known]), 0.0)
    ceiling = float(most.mean()) or 1.0
    kept = float(new.mean()) / ceiling
    spread = NINETY * _deviation(new - kept * most) / ceiling
    return {
        "requests": int(known.sum()),
        "as_routed": _mean(old, _half(before)[known]),
        "replayed": _mean(new, _half(after)[known]),
        "change": _mean(new - old, error, bounded=False),
        "best": _number(most.mean()),
        "kept": {"p": _number(kept), "low": _number(kept - spread), "high": _number(min(kept + spread, 1.0))},
        "kept_as_routed": _number(float(old.mean()) / ceiling),
        "interval": INTERVAL,
    }


def _half(side: Side) -> Doubles:
    """Half width of every request's interval."""
    half: Doubles = np.nan_to_num((side.high - side.low) / 2.0)
    return half


def _mean(values: Doubles, halves: Doubles, *, bounded: bool = True) -> dict[str, float | None]:
    middle, half = float(values.mean()), sqrt((NINETY * _deviation(values)) ** 2 + float(halves.mean()) ** 2)
    low, high = middle - half, middle + half
    if bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return {"p": _number(middle), "low": _number(low), "high": _number(high)}


def _deviation(values: Doubles) -> float:
    """Standard deviation of the mean."""
    return float(values.std(ddof=1)) / sqrt(values.size) if values.size > 1 else 0.0


def _times(seconds: Doubles) -> dict[str, Any]:
    known = seconds[np.isfinite(seconds)]
    if not known.size:
        return {"requests": 0}
    middle, late = np.quantile(known, (0.5, 0.95))
    return {
        "requests": int(known.size),
        "mean": _number(known.mean()),
        "p50": _number(middle),
        "p95": _number(late),
    }


def _models(past: Past, after: Side) -> list[dict[str, Any]]:
    """Share of the requests that each model is asked first for, the largest first; and that it really answered."""
    asked, answered, now = Counter(past.chosen), Counter(past.answered), Counter(after.model)
    names = {name for name in (*asked, *now, *answered) if name is not None}
    return [
        {
            "model": name,
            "as_routed": _share(asked[name], len(past)),
            "answered": _share(answered[name], len(past)),
            "replayed": _share(now[name], len(past)),
        }
        for name in sorted(names, key=lambda name: (-asked[name], name))
    ]


def _moves(replayed: Replayed, moved: list[int]) -> list[dict[str, Any]]:
    before, after = replayed.before, replayed.after
    change = np.nan_to_num(after.cost - before.cost)
    counts: Counter[tuple[str, str]] = Counter()
    costs: Counter[tuple[str, str]] = Counter()
    for place in moved:
        pair = str(before.model[place]), str(after.model[place])
        counts[pair] += 1
        costs[pair] += change[place]
    return [
        {
            "from": was,
            "to": now,
            "requests": count,
            "share": _share(count, len(before.model)),
            "change_usd": _usd(costs[was, now]),
        }
        for (was, now), count in counts.most_common()
    ]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _usd(pico: float) -> float | None:
    """Sums of predictions, not of money: what is booked is in the ledger, to the last digit."""
    return round(float(pico) / PICO_PER_USD, 9) if np.isfinite(pico) else None
