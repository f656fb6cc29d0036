"""The training in five named steps, from tables to one artifact file; the same tables and seed give the same bytes.

scale the outcomes -> fit the heads -> predict what the heads have not seen -> calibrate -> write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.artifact import Weights, save
from router_models.errors import TrainingDataError
from router_models.tiers import TIERS, Tier
from router_models.training.calibrate import (
    calibration_error,
    familiarity_of,
    fit_curve,
    fit_familiarity,
    half_width,
    sigmoid,
)
from router_models.training.corpus import (
    Corpus,
    Rows,
    Scaling,
    apply_scaling,
    fit_scaling,
    read_corpus,
    seen_table,
    unseen_shares,
)
from router_models.training.data import Tables
from router_models.training.fit import (
    Head,
    Names,
    domain_folds,
    fit_head,
    predict_unseen,
    stem_folds,
)
from router_models.training.item_response import Scale, fit_scale
from router_models.training.recognise import Recogniser, fit_recogniser

NAME = "first"
WANTED_PROMPTS = 50
# Prompts of known domains with more unseen words than this share of them are called unfamiliar.
UNSEEN_QUANTILE = 0.99
# Likewise those less familiar than this share of them.
UNFAMILIAR_QUANTILE = 0.02

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


@dataclass(frozen=True)
class Calibrated:
    """Arrays of Weights that calibration fills (row 0 unfamiliar, row 1 familiar), and its report for the card."""

    familiarity: Doubles
    familiarity_limit: float
    slope: Doubles
    offset: Doubles
    half_width: Doubles
    report: dict[str, Any]


def train(tables: Tables, out: Path, seed: int = 0) -> Trained:
    """Train on every trainable prompt and write the artifact to `out`; `seed` draws the folds. Raises TrainingDataError."""
    prompts = tables.prompts[tables.prompts["trainable"]]
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index)]
    if len(prompts) < WANTED_PROMPTS:
        raise TrainingDataError(f"{len(prompts)} trainable prompts are too few; at least {WANTED_PROMPTS} are needed")
    domains = prompts["domain"].to_numpy(dtype=str)
    stems = prompts["stem_key"].to_numpy(dtype=str)

    targets = read_targets(prompts.index, recorded)
    corpus = read_corpus(prompts["prompt"])
    scaling = fit_scaling(corpus)
    recogniser = fit_recogniser(*apply_scaling(corpus, scaling), domains)
    learnt = [targets.ease, *(targets.log_tokens[tier] for tier in TIERS)]
    heads = [_fit_known(corpus, scaling, domains, target) for target in learnt]
    calibrated = _calibrate(corpus, domains, stems, targets, seed)
    factors = [_token_factor(corpus, domains, stems, targets.log_tokens[tier], seed) for tier in TIERS]
    limit = _unseen_limit(corpus, stems, seed)

    weights = _assemble(scaling, recogniser, heads, calibrated, factors, seen_table(corpus), limit)
    card = _card(prompts, recorded, targets.scale, calibrated, limit)
    version = save(out, weights, recogniser.domains.tolist(), NAME, card)
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


def _known(target: Doubles) -> Rows:
    return np.flatnonzero(~np.isnan(target))


def _fit_known(corpus: Corpus, scaling: Scaling, domains: Names, target: Doubles) -> Head:
    rows = _known(target)
    if rows.size < WANTED_PROMPTS:
        raise TrainingDataError(f"{rows.size} prompts with outcomes of a tier are too few; need {WANTED_PROMPTS}")
    return fit_head(*apply_scaling(corpus.take(rows), scaling), domains[rows], target[rows])


def _calibrate(corpus: Corpus, domains: Names, stems: Names, targets: Targets, seed: int) -> Calibrated:
    """Curves fitted in equal parts to prompts with only their stem, and with their whole domain, left out.

    Traffic is never exactly the domains of the tables; how far a prompt is from them (its familiarity) moves the curve.
    """
    rows = _known(targets.ease)
    part, names, ease = corpus.take(rows), domains[rows], targets.ease[rows]
    near = predict_unseen(part, names, ease, stem_folds(stems[rows], seed))
    far = predict_unseen(part, names, ease, domain_folds(names))
    both = np.flatnonzero(~np.isnan(near.value) & ~np.isnan(far.value))
    familiarity = fit_familiarity(near.signals[both], far.signals[both], names[both])
    known = familiarity_of(familiarity, near.signals)
    unknown = familiarity_of(familiarity, far.signals)
    slope, offset, half = (np.zeros((2, len(TIERS))) for _ in range(3))
    report: dict[str, Any] = {}
    for column, tier in enumerate(TIERS):
        use = both[~np.isnan(targets.rate[tier][rows][both])]
        rate, group = targets.rate[tier][rows][use], names[use]
        values = np.concatenate((near.value[use], far.value[use]))
        curve = fit_curve(values, np.concatenate((known[use], unknown[use])), np.tile(rate, 2), np.tile(group, 2))
        slope[:, column], offset[:, column] = curve.slope, curve.offset
        by_stem, by_domain = curve.logit(near.value[use], known[use]), curve.logit(far.value[use], unknown[use])
        half[:, column] = half_width(by_domain, rate, group), half_width(by_stem, rate, group)
        report[tier] = {
            "prompts": int(use.size),
            "mean_rate": round(float(rate.mean()), 4),
            "calibration_error_unseen_stems": round(calibration_error(sigmoid(by_stem), rate), 4),
            "calibration_error_unseen_domains": round(calibration_error(sigmoid(by_domain), rate), 4),
            "half_width_logits": {"unfamiliar": round(half[0, column], 3), "familiar": round(half[1, column], 3)},
        }
    limit = float(np.quantile(known[both], UNFAMILIAR_QUANTILE))
    return Calibrated(familiarity, limit, slope, offset, half, report)


def _token_factor(corpus: Corpus, domains: Names, stems: Names, log_tokens: Doubles, seed: int) -> float:
    """Mean of exp(residual) on unseen stems: the log's mean is not the mean's log (Duan 1983, smearing)."""
    rows = _known(log_tokens)
    predicted = predict_unseen(corpus.take(rows), domains[rows], log_tokens[rows], stem_folds(stems[rows], seed)).value
    residual = (log_tokens[rows] - predicted)[~np.isnan(predicted)]
    return float(np.exp(np.clip(residual, -3.0, 3.0)).mean()) if residual.size else 1.0


def _unseen_limit(corpus: Corpus, stems: Names, seed: int) -> float:
    shares = [
        unseen_shares(corpus.take(fold.test), seen_table(corpus.take(fold.fit)))
        for fold in stem_folds(stems, seed)
        if fold.test.size
    ]
    return float(np.quantile(np.concatenate(shares), UNSEEN_QUANTILE))


def _assemble(
    scaling: Scaling,
    recogniser: Recogniser,
    heads: list[Head],
    calibrated: Calibrated,
    factors: list[float],
    seen: NDArray[np.bool_],
    limit: float,
) -> Weights:
    columns = [*(head.hashed for head in heads), *recogniser.hashed.T]
    hashed = np.stack(columns, axis=1) * scaling.idf[:, None]
    offset, slope = (np.stack(parts, axis=-1) for parts in zip(*(_spread(h, recogniser) for h in heads), strict=True))
    return Weights(
        hashed=hashed.astype(np.float32),
        idf=scaling.idf,
        dense=np.stack([head.dense for head in heads], axis=1).astype(np.float32),
        centre=scaling.centre,
        scale=scaling.scale,
        bias=np.array([head.bias for head in heads], dtype=np.float32),
        domain_bias=recogniser.bias.astype(np.float32),
        domain_linear=recogniser.linear.astype(np.float32),
        domain_square=recogniser.square.astype(np.float32),
        domain_offset=offset.astype(np.float32),
        domain_slope=slope.astype(np.float32),
        slope=calibrated.slope,
        offset=calibrated.offset,
        half_width=calibrated.half_width,
        token_factor=np.array(factors),
        seen=np.packbits(seen, bitorder="little"),
        familiarity=calibrated.familiarity,
        limits=np.array([limit, calibrated.familiarity_limit]),
    )


def _spread(head: Head, recogniser: Recogniser) -> tuple[Doubles, Doubles]:
    """The head's offsets and slopes for every recognised domain, zero for those the head has no data of."""
    offset = np.zeros(recogniser.domains.size)
    slope = np.zeros((recogniser.domains.size, head.dense.size))
    place = np.searchsorted(recogniser.domains, head.domains)
    offset[place], slope[place] = head.offset, head.slope
    return offset, slope


def _card(
    prompts: pd.DataFrame, recorded: pd.DataFrame, scale: Scale, calibrated: Calibrated, limit: float
) -> dict[str, Any]:
    return {
        "prompts": len(prompts),
        "outcomes": len(recorded),
        "domains": {str(name): int(count) for name, count in sorted(prompts["domain"].value_counts().items())},
        "ability": {model: round(value, 3) for model, value in sorted(scale.ability.items())},
        "calibration": calibrated.report,
        "unseen_words_limit": round(limit, 4),
        "familiarity_limit": round(calibrated.familiarity_limit, 4),
    }
