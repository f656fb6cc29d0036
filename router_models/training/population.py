"""Learns what the recorded models have in common, so that a new model can be judged from a few dozen labelled prompts.

Every recorded model's ability vector is fitted on predictions for prompts that the heads had not seen. Their mean and
covariance are the prior for a model that was never recorded (empirical Bayes, Efron and Morris 1973).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.abilities import map_ability
from router_models.training.fit import Names

WANTED_OUTCOMES = 100
# A wide prior for the models that make the prior.
WIDE = 3.0
ROUNDS = 3
CELL_PROMPTS = 25

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """`values` (N, R): representations, NaN where ease is unknown; tokens are (log tokens - middle) / spread."""

    values: Doubles
    middle: float
    spread: float


@dataclass(frozen=True)
class Population:
    """The prior and the M models it comes from; `missed`: typical logits by which a cell of a domain differs from its model."""

    mean: Doubles
    spread: Doubles
    models: list[str]
    abilities: Doubles
    domains: Names
    domain_shown: Doubles
    missed: float


def shown_of(ease: Doubles, log_tokens: Doubles, factor: float) -> Shown:
    """Representations as the router computes them, from predictions of unseen stems."""
    logs = np.clip(log_tokens + np.log(factor), 0.0, np.log(16_384.0))
    middle, spread = float(np.nanmean(logs)), float(np.nanstd(logs)) + 1e-3
    return Shown(np.stack((np.ones(ease.size), ease, (logs - middle) / spread), axis=1), middle, spread)


def learn_population(shown: Doubles, recorded: pd.DataFrame, rows: pd.Index[int], domains: Names) -> Population:
    """Fit every model with enough outcomes, then the prior; `rows` are the prompts of `shown` (N, R)."""
    place = pd.Series(np.arange(len(rows)), index=rows)
    usable = recorded[recorded["score"].notna()]
    table = usable.assign(place=place.reindex(usable["row"]).to_numpy(), score=usable["score"].clip(0.0, 1.0))
    table = table[~np.isnan(shown[table["place"].to_numpy(dtype=np.int64)]).any(axis=1)]
    width = shown.shape[1]
    mean, spread = np.zeros(width), WIDE**2 * np.eye(width)
    models, given = [], []
    for model, part in table.groupby("model"):
        if len(part) >= WANTED_OUTCOMES:
            models.append(str(model))
            given.append((part["place"].to_numpy(dtype=np.int64), part["score"].to_numpy(dtype=np.float64)))
    abilities = np.zeros((len(models), width))
    if len(models) > 1:
        for _ in range(ROUNDS):
            fitted = [map_ability(shown[at], score, np.ones(at.size), mean, spread) for at, score in given]
            abilities = np.stack([vector for vector, _ in fitted])
            mean = abilities.mean(axis=0)
            away = abilities - mean
            spread = away.T @ away / len(models) + np.mean([own for _, own in fitted], axis=0) + 1e-3 * np.eye(width)
    names = np.unique(domains)
    usable_rows = ~np.isnan(shown).any(axis=1)
    domain_shown = np.stack(
        [
            shown[usable_rows & (domains == name)].mean(axis=0)
            if (usable_rows & (domains == name)).any()
            else mean * 0.0
            for name in names
        ]
    )
    missed = _missed(shown, abilities, given, domains)
    return Population(mean, spread, models, abilities, names, domain_shown, missed)


def _missed(
    shown: Doubles, abilities: Doubles, given: list[tuple[NDArray[np.int64], Doubles]], domains: Names
) -> float:
    """Root mean square of observed minus expected logits over cells (model x domain), less what chance explains."""
    squares = []
    for vector, (at, score) in zip(abilities, given, strict=True):
        for name in np.unique(domains[at]):
            cell = domains[at] == name
            count = int(np.count_nonzero(cell))
            if count >= CELL_PROMPTS:
                expected = float((1.0 / (1.0 + np.exp(-shown[at[cell]] @ vector))).mean())
                observed = (float(score[cell].sum()) + 0.5) / (count + 1.0)
                chance = 1.0 / (count * max(expected * (1.0 - expected), 0.01))
                gap = np.log(observed / (1.0 - observed)) - np.log(expected / (1.0 - expected))
                squares.append(gap**2 - chance)
    return float(np.sqrt(max(float(np.mean(squares)), 0.0))) if squares else 0.5
