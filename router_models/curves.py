"""From heads and familiarity to logits, qualities and tokens of many prompts at once: what Router gives one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router_models.abilities import FLOOR
from router_models.artifact import LENGTH, OWN_LEVEL, REASONING, Weights
from router_models.place import ramps
from router_models.tiers import TIERS

TOKEN_BOUNDS = (1.0, 16_384.0)
# Of familiarity: on unfamiliar domains the tiers' own levels do harm, on familiar ones they are most of what is to be had.
OWN_POWER = 3

Doubles = NDArray[np.float64]


def drawn_ease(ease: Doubles, familiarity: Doubles, shrink: Doubles) -> Doubles:
    """Ease (N,) drawn to where prompts of unknown domains lie, the less familiar the more."""
    keep, shift = shrink
    result: Doubles = (keep + familiarity * (1.0 - keep)) * ease + (1.0 - familiarity) * shift
    return result


def logits_of(weights: Weights, heads: Doubles, familiarity: Doubles) -> Doubles:
    """Logits (N, T) of a good answer from heads (N, H), before a stronger tier is kept from being worse."""
    parts = ramps(drawn_ease(heads[:, 0], familiarity, weights.shrink), weights.knots)
    own = heads[:, 2 + OWN_LEVEL : 2 + OWN_LEVEL + len(TIERS)]
    result: Doubles = parts @ weights.slope.T + weights.offset + familiarity[:, None] ** OWN_POWER * own
    return result


def half_widths(weights: Weights, familiarity: Doubles) -> Doubles:
    """Half widths (N, T) of the intervals, in logits."""
    wide, narrow = weights.half_width
    result: Doubles = wide + familiarity[:, None] * (narrow - wide)
    return result


def qualities(logits: Doubles) -> Doubles:
    """Probabilities (N, T) as the router reports them: never certain, never falling from one tier to the next."""
    bounded = np.clip(1.0 / (1.0 + np.exp(-np.clip(logits, -50.0, 50.0))), FLOOR, 1.0 - FLOOR)
    result: Doubles = np.maximum.accumulate(bounded, axis=1)
    return result


def log_tokens_of(heads: Doubles, familiarity: Doubles, offset: Doubles) -> Doubles:
    """Predicted logarithms (N, T) of output tokens."""
    known = familiarity[:, None]
    own, shared = heads[:, 2 : 2 + len(TIERS)], heads[:, 2 + LENGTH, None] + offset
    result: Doubles = known * own + (1.0 - known) * shared
    return result


def tokens_of(weights: Weights, heads: Doubles, familiarity: Doubles) -> Doubles:
    """Expected output tokens (N, T)."""
    logs = log_tokens_of(heads, familiarity, weights.token_offset)
    result: Doubles = np.clip(np.exp(np.minimum(logs, 12.0)) * weights.token_factor, *TOKEN_BOUNDS)
    return result


def reasoning_tokens_of(weights: Weights, heads: Doubles) -> Doubles:
    """Expected reasoning tokens (N,)."""
    logs = heads[:, 2 + REASONING]
    result: Doubles = np.clip(np.exp(np.minimum(logs, 12.0)) * weights.thinking[2], *TOKEN_BOUNDS)
    return result
