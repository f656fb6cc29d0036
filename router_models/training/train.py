"""The training in named steps, from tables to one artifact file; the same tables and seed give the same bytes.

scale the outcomes -> place the prompts -> fit the heads -> predict what they have not seen -> calibrate -> abilities ->
sample for promises -> write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from router_models import embedder
from router_models.artifact import HEADS, LENGTH, Artifact, Weights, save
from router_models.curves import log_tokens_of
from router_models.embedder import Embedder
from router_models.features import Floats
from router_models.floor import CalibrationSample
from router_models.router import Router
from router_models.tiers import TIERS
from router_models.training.calibrate import Answers, Calibrated, calibrate
from router_models.training.corpus import (
    Corpus,
    Rows,
    Scaling,
    fit_scaling,
    points,
    read_corpus,
    resemblance,
    seen_table,
    standard_core,
    unseen_shares,
)
from router_models.training.data import Tables
from router_models.training.fit import (
    Fold,
    Head,
    Names,
    Unseen,
    choose_landmarks,
    domain_folds,
    fit_head,
    longer_is_harder,
    predict_unseen,
    stem_folds,
    whitening,
)
from router_models.training.item_response import Scale
from router_models.training.population import Population, learn_population, shown_of
from router_models.training.sample import draw_sample, sample_card
from router_models.training.targets import (
    PREDICTED_THINKING,
    Targets,
    checked,
    read_answers,
    read_targets,
    refuse_too_little,
)
from router_models.training.thinking import believed

NAME = "kernel"
SAMPLE_DRAWN = "recorded prompts with int(stem_key, 16) % 8 == 3 that are not held out"
# Prompts of known domains with more unseen words than this share of them are called unfamiliar.
UNSEEN_QUANTILE = 0.99

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """Version and path of the artifact written, and the card stored inside it."""

    version: str
    path: Path
    card: dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """The N training prompts as they are fitted: points, core features, domains, data sets, stems, rows of landmarks."""

    points: Floats
    core: Floats
    domains: Names
    sets: Names
    stems: Names
    landmarks: Rows


def train(tables: Tables, out: Path, seed: int = 0, table: Embedder | None = None) -> Trained:
    """Train on every trainable prompt and write the artifact to `out`; `seed` draws landmarks and folds.

    `table` is the embedder (default: the bundled one). Raises TrainingDataError.
    """
    # Sums of several threads are added in another order, and so have other last bits.
    with threadpool_limits(limits=1):
        return _train(tables, out, seed, table)


def _train(tables: Tables, out: Path, seed: int, table: Embedder | None) -> Trained:
    table = embedder.load() if table is None else table
    prompts = tables.prompts[tables.prompts["trainable"]]
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index)]
    refuse_too_little(prompts, recorded)
    targets = read_targets(prompts, recorded, tables.ratings)
    corpus = read_corpus(prompts["prompt"], table)
    scaling = fit_scaling(corpus)
    domains, sets, stems = (prompts[column].to_numpy(dtype=str) for column in ("domain", "dataset", "stem_key"))
    placed = points(corpus, scaling)
    landmarks = choose_landmarks(placed, domains, seed)
    ground = Ground(placed, standard_core(corpus, scaling), domains, sets, stems, landmarks)
    by_stem = _predict(ground, targets.heads, stem_folds(stems, seed))
    by_domain = _predict(ground, targets.heads, domain_folds(domains))
    seen = seen_table(corpus, len(table.vocabulary))
    shares = _unseen(corpus, stems, seed, len(table.vocabulary))

    answers = read_answers(prompts.index, recorded, domains, ~np.isnan(by_domain.value[:, 0]))
    calibrated = _calibrate(ground, targets, (by_stem, by_domain), shares, answers, seed)
    marks = ground.points[landmarks]
    heads = _fit_heads(ground, targets, calibrated.own_levels)
    factors, logs = _token_factors(targets, by_stem.value, calibrated.near.familiarity)
    shown = shown_of(by_stem.value[:, 0], logs, factors[0])
    population = learn_population(shown.values, recorded, prompts.index, domains)
    mean, certain, thinking = believed(targets.thinking.gain, by_domain.value[:, PREDICTED_THINKING], domains)
    reasoning = _token_factor(targets.thinking.log_written, by_stem.value[:, PREDICTED_THINKING + 1])
    limits = np.array([float(np.nanquantile(shares, UNSEEN_QUANTILE)), calibrated.familiarity_limit])
    weights = Weights(
        **_prepared(scaling, marks, heads, calibrated),
        home=np.searchsorted(population.domains, domains[landmarks]).astype(np.int32),
        token_offset=targets.lengths.tier,
        token_factor=np.array(factors),
        thinking=np.array([mean, certain, reasoning]),
        limits=limits,
        shown=np.array([shown.middle, shown.spread, population.missed]),
        prior=population.mean,
        prior_spread=population.spread,
        abilities=population.abilities,
        domain_shown=population.domain_shown,
        seen=np.packbits(seen, bitorder="little"),
    )
    names = [str(name) for name in population.domains]
    card = _card(prompts, recorded, targets.scale, calibrated, population, weights, table)
    card["ratings"] = targets.ratings
    card["thinking"] = {**thinking, "believed_of_unfamiliar": round(certain, 3)}
    made = Artifact(NAME, weights, tuple(names), tuple(population.models), card, table, CalibrationSample.empty())
    sample = draw_sample(Router(made), tables)
    card["calibration_sample"] = sample_card(sample, SAMPLE_DRAWN)
    version = save(out, weights, names, population.models, NAME, card, table, sample)
    return Trained(version, out, card)


def _prepared(scaling: Scaling, marks: Floats, heads: list[Head], calibrated: Calibrated) -> dict[str, NDArray[Any]]:
    """What the weights take over from scaling, heads and calibration, by name."""
    curves = calibrated.curves
    return {
        **{name: getattr(scaling, name) for name in ("centre", "scale", "middle", "pull")},
        "landmarks": marks,
        "kernel": np.stack([head.kernel for head in heads], axis=1).astype(np.float32),
        "core": np.stack([head.core for head in heads], axis=1).astype(np.float32),
        "bias": np.array([head.bias for head in heads], dtype=np.float32),
        "familiarity": calibrated.familiarity,
        **{name: getattr(curves, name) for name in ("shrink", "knots", "slope", "offset")},
        "half_width": calibrated.half_width,
    }


def _calibrate(
    ground: Ground, targets: Targets, unseen: tuple[Unseen, Unseen], shares: Doubles, answers: Answers, seed: int
) -> Calibrated:
    """Calibrate on predictions for unseen stems and unseen domains, the tiers' own levels predicted in the same folds."""

    def own_levels(target: Doubles) -> tuple[Doubles, Doubles]:
        folds = stem_folds(ground.stems, seed), domain_folds(ground.domains)
        stem, domain = (np.nan_to_num(_predict(ground, list(target.T), each).value) for each in folds)
        return stem, domain

    fitted, recorded = (np.stack([each[tier] for tier in TIERS], axis=1) for each in (targets.rate, targets.recorded))
    return calibrate(*unseen, shares, targets.ease, fitted, recorded, ground.domains, ground.sets, answers, own_levels)


def _fit_heads(ground: Ground, targets: Targets, own_levels: Doubles) -> list[Head]:
    """All heads on all prompts, in the order of the artifact."""
    near, white = (
        resemblance(ground.points, ground.points[ground.landmarks]),
        whitening(ground.points[ground.landmarks]),
    )
    core, domains = ground.core, ground.domains
    ease, *logs = (fit_head(near, white, core, domains, checked(target)) for target in targets.needed)
    kind = longer_is_harder(fit_head(near, white, core, domains, targets.ease, levels=False))
    others = [fit_head(near, white, core, domains, target) for target in (*own_levels.T, *targets.others)]
    return [ease, kind, *logs, *others]


def _predict(ground: Ground, targets: list[Doubles], folds: Iterator[Fold]) -> Unseen:
    return predict_unseen(ground.points, ground.core, ground.domains, targets, ground.landmarks, folds)


def _token_factors(targets: Targets, predicted: Doubles, familiarity: Doubles) -> tuple[list[float], Doubles]:
    """Factors by tier, and the predicted log tokens (N,) of the first, for prompts that heads had not seen."""
    heads = np.zeros((len(predicted), HEADS))
    heads[:, 2 : 2 + len(TIERS)] = predicted[:, 1 : 1 + len(TIERS)]
    heads[:, 2 + LENGTH] = predicted[:, 1 + len(TIERS)]
    logs = log_tokens_of(heads, familiarity, targets.lengths.tier)
    return [_token_factor(targets.log_tokens[tier], logs[:, i]) for i, tier in enumerate(TIERS)], logs[:, 0]


def _token_factor(log_tokens: Doubles, predicted: Doubles) -> float:
    """Mean of exp(residual) on unseen stems: the log's mean is not the mean's log (Duan 1983, smearing)."""
    residual = (log_tokens - predicted)[~np.isnan(log_tokens) & ~np.isnan(predicted)]
    return float(np.exp(np.clip(residual, -3.0, 3.0)).mean()) if residual.size else 1.0


def _unseen(corpus: Corpus, stems: Names, seed: int, tokens: int) -> Doubles:
    """Share of words that the other stems do not have, for every prompt."""
    shares = np.zeros(len(stems))
    fold: Fold
    for fold in stem_folds(stems, seed):
        if fold.test.size:
            shares[fold.test] = unseen_shares(corpus.take(fold.test), seen_table(corpus.take(fold.fit), tokens))
    return shares


def _card(
    prompts: pd.DataFrame,
    recorded: pd.DataFrame,
    scale: Scale,
    calibrated: Calibrated,
    population: Population,
    weights: Weights,
    table: Embedder,
) -> dict[str, Any]:
    return {
        "prompts": len(prompts),
        "outcomes": len(recorded),
        "landmarks": len(weights.landmarks),
        "embedder": {"version": table.version, **table.source},
        "domains": {str(name): int(count) for name, count in sorted(prompts["domain"].value_counts().items())},
        "ability": {model: round(value, 3) for model, value in sorted(scale.ability.items())},
        "population": {"models": len(population.models), "logits_missed": round(population.missed, 3)},
        "calibration": calibrated.report,
        "unseen_words_limit": round(float(weights.limits[0]), 4),
        "familiarity_limit": round(float(weights.limits[1]), 4),
    }
