"""The training in named steps, from tables to one artifact file; the same tables and seed give the same bytes.

scale the outcomes -> place the prompts -> fit the heads -> predict what they have not seen -> calibrate -> abilities ->
sample for promises -> write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models import embedder
from router_models.artifact import Artifact, Weights, save
from router_models.embedder import Embedder
from router_models.errors import TrainingDataError
from router_models.features import Floats
from router_models.floor import CalibrationSample
from router_models.router import Router
from router_models.tiers import TIERS, Tier
from router_models.training.calibrate import Calibrated, calibrate
from router_models.training.corpus import (
    Corpus,
    Rows,
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
    Names,
    choose_landmarks,
    domain_folds,
    fit_head,
    longer_is_harder,
    predict_unseen,
    stem_folds,
    whitening,
)
from router_models.training.item_response import Scale, fit_scale
from router_models.training.population import Population, learn_population, shown_of
from router_models.training.sample import draw_sample, sample_card

NAME = "kernel"
SAMPLE_DRAWN = "recorded prompts with int(stem_key, 16) % 8 == 3 that are not held out"
WANTED_PROMPTS = 50
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
class Targets:
    """What is learnt about the N prompts of the corpus; NaN where nothing was recorded.

    `ease` (N,): minus the difficulty of the item-response scale. `rate[tier]` (N,): mean score of the tier's models.
    `log_tokens[tier]` (N,): mean of log output tokens of the tier's models.
    """

    ease: Doubles
    rate: dict[Tier, Doubles]
    log_tokens: dict[Tier, Doubles]
    scale: Scale

    @property
    def heads(self) -> list[Doubles]:
        """What has to be predicted: ease, then log tokens by tier."""
        return [self.ease, *(self.log_tokens[tier] for tier in TIERS)]


@dataclass(frozen=True)
class Ground:
    """The N training prompts as they are fitted: points, core features, domains, stems, rows of landmarks, unseen words."""

    points: Floats
    core: Floats
    domains: Names
    stems: Names
    landmarks: Rows


def train(tables: Tables, out: Path, seed: int = 0, table: Embedder | None = None) -> Trained:
    """Train on every trainable prompt and write the artifact to `out`; `seed` draws landmarks and folds.

    `table` is the embedder (default: the bundled one). Raises TrainingDataError.
    """
    table = embedder.load() if table is None else table
    prompts = tables.prompts[tables.prompts["trainable"]]
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index)]
    if len(prompts) < WANTED_PROMPTS:
        raise TrainingDataError(f"{len(prompts)} trainable prompts are too few; at least {WANTED_PROMPTS} are needed")
    targets = read_targets(prompts.index, recorded)
    corpus = read_corpus(prompts["prompt"], table)
    scaling = fit_scaling(corpus)
    domains, stems = (prompts[column].to_numpy(dtype=str) for column in ("domain", "stem_key"))
    landmarks = choose_landmarks(domains, seed)
    ground = Ground(points(corpus, scaling), standard_core(corpus, scaling), domains, stems, landmarks)
    marks = ground.points[landmarks]
    near, white = resemblance(ground.points, marks), whitening(marks)
    ease, *logs = (fit_head(near, white, ground.core, domains, _checked(target)) for target in targets.heads)
    heads = [ease, longer_is_harder(fit_head(near, white, ground.core, domains, targets.ease, levels=False)), *logs]
    by_stem = _predict(ground, targets, stem_folds(stems, seed))
    by_domain = _predict(ground, targets, domain_folds(domains))
    seen = seen_table(corpus, len(table.vocabulary))
    shares = _unseen(corpus, stems, seed, len(table.vocabulary))
    calibrated = calibrate(by_stem, by_domain, shares, targets.ease, targets.rate, domains)
    factors = [_token_factor(targets.log_tokens[tier], by_stem.value[:, 1 + i]) for i, tier in enumerate(TIERS)]
    shown = shown_of(by_stem.value[:, 0], by_stem.value[:, 1], factors[0])
    population = learn_population(shown.values, recorded, prompts.index, domains)
    weights = Weights(
        centre=scaling.centre,
        scale=scaling.scale,
        middle=scaling.middle,
        pull=scaling.pull,
        landmarks=marks,
        home=np.searchsorted(population.domains, domains[landmarks]).astype(np.int32),
        kernel=np.stack([head.kernel for head in heads], axis=1).astype(np.float32),
        core=np.stack([head.core for head in heads], axis=1).astype(np.float32),
        bias=np.array([head.bias for head in heads], dtype=np.float32),
        familiarity=calibrated.familiarity,
        knots=calibrated.knots,
        slope=calibrated.slope,
        offset=calibrated.offset,
        half_width=calibrated.half_width,
        token_factor=np.array(factors),
        limits=np.array([float(np.nanquantile(shares, UNSEEN_QUANTILE)), calibrated.familiarity_limit]),
        shown=np.array([shown.middle, shown.spread, population.missed]),
        prior=population.mean,
        prior_spread=population.spread,
        abilities=population.abilities,
        domain_shown=population.domain_shown,
        seen=np.packbits(seen, bitorder="little"),
    )
    names = [str(name) for name in population.domains]
    card = _card(prompts, recorded, targets.scale, calibrated, population, weights, table)
    made = Artifact(NAME, weights, tuple(names), tuple(population.models), card, table, CalibrationSample.empty())
    sample = draw_sample(Router(made), tables)
    card["calibration_sample"] = sample_card(sample, SAMPLE_DRAWN)
    version = save(out, weights, names, population.models, NAME, card, table, sample)
    return Trained(version, out, card)


def read_targets(rows: pd.Index[int], recorded: pd.DataFrame) -> Targets:
    """Targets for the prompts in `rows` from their recorded outcomes."""
    scored = recorded[recorded["score"].notna()]
    scored = scored.assign(score=scored["score"].clip(0.0, 1.0))
    scale = fit_scale(scored)
    ease = -pd.Series(scale.difficulty, dtype="float64").reindex(rows).to_numpy()
    written = recorded[recorded["out_tokens"].notna()]
    written = written.assign(log_tokens=np.log(written["out_tokens"].clip(lower=1.0)))
    rate = {tier: _mean(scored, "score", tier, rows) for tier in TIERS}
    log_tokens = {tier: _mean(written, "log_tokens", tier, rows) for tier in TIERS}
    return Targets(ease, rate, log_tokens, scale)


def _mean(table: pd.DataFrame, column: str, tier: Tier, rows: pd.Index[int]) -> Doubles:
    means = table[table["tier"] == tier].groupby("row")[column].mean()
    result: Doubles = means.reindex(rows).to_numpy(dtype=np.float64)
    return result


def _checked(target: Doubles) -> Doubles:
    count = int(np.count_nonzero(~np.isnan(target)))
    if count < WANTED_PROMPTS:
        raise TrainingDataError(f"{count} prompts with outcomes of a tier are too few; need {WANTED_PROMPTS}")
    return target


def _predict(ground: Ground, targets: Targets, folds: Any) -> Any:
    return predict_unseen(ground.points, ground.core, ground.domains, targets.heads, ground.landmarks, folds)


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
