"""RouteLLM's protocol: how much of the gap between a weak and a strong model a ranking of prompts recovers.

Source: Ong et al., RouteLLM, arXiv 2406.18665. Prompts are ranked by a score; at the 11 edges of its deciles those at or above
the edge go to the strong model. APGR is the area under quality against share of strong calls, scaled so that the
weak model is 0 and the strong one 1. CPT(x) is the smallest share of strong calls, in percent, that recovers x % of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
EDGES = 10


@dataclass(frozen=True)
class PairedOutcomes:
    """N prompts answered by a weak and a strong model; `weak` and `strong` are their scores, shape (N,)."""

    name: str
    prompts: list[str]
    subjects: list[str]
    weak: Doubles
    strong: Doubles


@dataclass(frozen=True)
class GapRecovered:
    """APGR with its 95 % bootstrap interval over prompts, CPT50 and CPT80 in percent of calls to the strong model."""

    apgr: float
    low: float
    high: float
    cpt50: float
    cpt80: float


def curve(score: Doubles, weak: Doubles, strong: Doubles) -> tuple[Doubles, Doubles]:
    """Share of strong calls (0..1, ascending) and mean quality at the edges of the score's deciles."""
    edges = pd.qcut(score, EDGES, retbins=True, duplicates="drop")[1]
    shares, qualities = [], []
    for place, edge in enumerate(edges):
        chosen = score > edge if place == len(edges) - 1 else score >= edge
        shares.append(chosen.mean())
        qualities.append(np.where(chosen, strong, weak).mean())
    order = np.argsort(shares, kind="stable")
    return np.array(shares)[order], np.array(qualities)[order]


def gap_recovered(score: Doubles, data: PairedOutcomes, seed: int, resamples: int = 200) -> GapRecovered:
    """APGR and CPT of a score, higher meaning send to the strong model."""
    rng = np.random.default_rng(seed)
    picks = (rng.integers(0, score.size, score.size) for _ in range(resamples))
    draws = [apgr(score[pick], data.weak[pick], data.strong[pick]) for pick in picks]
    low, high = np.quantile(draws, (0.025, 0.975))
    found = apgr(score, data.weak, data.strong)
    return GapRecovered(found, float(low), float(high), *(_cpt(score, data, share) for share in (0.5, 0.8)))


def apgr(score: Doubles, weak: Doubles, strong: Doubles) -> float:
    """Average performance gap recovered by a score, higher meaning send to the strong model."""
    shares, qualities = curve(score, weak, strong)
    gap = strong.mean() - weak.mean()
    return float((np.trapezoid(qualities, shares) - weak.mean()) / gap) if gap else float("nan")


def _cpt(score: Doubles, data: PairedOutcomes, share: float) -> float:
    shares, qualities = curve(score, data.weak, data.strong)
    wanted = data.weak.mean() + share * (data.strong.mean() - data.weak.mean())
    for place in range(1, shares.size):
        left, right = qualities[place - 1], qualities[place]
        if left < wanted <= right:
            part = (wanted - left) / (right - left)
            return float(100 * (shares[place - 1] + part * (shares[place] - shares[place - 1])))
    return 0.0 if qualities[0] >= wanted else 100.0
