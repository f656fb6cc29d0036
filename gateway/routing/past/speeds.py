"""How fast models answered in the past: a line per model from output tokens to seconds (pure)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gateway.catalog import Model
from gateway.routing.ask import UNKNOWN, State
from gateway.routing.past.columns import Past

ENOUGH = 5
"""Answers below which nothing is said of a model."""


def measured_states(past: Past, models: Iterable[Model]) -> tuple[State, ...]:
    """What replay expects of each deployment, by index: what its model took in the past, and nothing wrong with it."""
    names = np.array([name or "" for name in past.answered])
    plain = (past.attempts == 1) & (past.written > 0) & (past.seconds >= 0.0)
    lines = {name: _line(past, plain & (names == name)) for name in set(names.tolist()) if name}
    return tuple(lines.get(model.name, UNKNOWN) for model in models)


def _line(past: Past, rows: np.ndarray) -> State:
    written, seconds = past.written[rows].astype(np.float64), past.seconds[rows]
    if written.size < ENOUGH:
        return UNKNOWN
    spread = float(np.var(written))
    slope = float(np.mean((written - written.mean()) * (seconds - seconds.mean()))) / spread if spread > 0.0 else 0.0
    # Neither a start before the request nor an answer that is quicker for being longer: then all of it is one or the other.
    slope = min(max(slope, 0.0), float(seconds.mean() / written.mean()))
    return State(first_token=max(float(seconds.mean() - slope * written.mean()), 0.0), per_token=slope)
