"""Fits an artifact's curves, token counts and calibration sample to labels of one's own traffic; numpy alone, no retraining.

Per tier two numbers stretch and shift the logits of the curve (Platt 1999), held near "no change" by a prior, so that a few
dozen labels correct the level and hundreds the slope too. Where enough prompts are labelled in every tier that promises are
made for, half of them becomes the calibration sample that promises are tested with, and is not fitted on; else the artifact's
own sample stays. Too few labels are refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.abilities import FLOOR, map_ability
from router_models.artifact import HEADS, OWN_LEVEL, Artifact, Weights, save
from router_models.bounds import WANTED_LABELS
from router_models.curves import TOKEN_BOUNDS, qualities
from router_models.errors import TrainingDataError
from router_models.floor import CalibrationSample
from router_models.tiers import TIERS, Tier

# Prompts with a label in any tier that a calibration needs, and labels of one tier without which its curve stays.
WANTED_PROMPTS = 50
WANTED_IN_TIER = 20
# Prompts labelled in all of the tiers that are split between curves and sample; with fewer the artifact's own sample stays, as
# half of them would not be enough to promise anything with.
WANTED_FOR_SAMPLE = 2 * WANTED_LABELS
# Standard deviations of the prior about slope 1 and shift 0, in logits.
SLOPE_SPREAD, SHIFT_SPREAD = 0.25, 1.0
SMALLEST_SLOPE = 0.05
# Answers that the artifact's own token factor counts as.
TOKENS_PRIOR = 20.0
FOLDS = 5
CELL_PROMPTS = 25
# Half widths of intervals, in logits.
NARROWEST, WIDEST = 0.1, 2.0

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPrompts:
    """N prompts as an artifact sees them, and what is known of answers to them; tiers in columns, NaN where nothing is known.

    `quality` and `expected_tokens` (N, T) are what the artifact that is to be calibrated predicts, `input_tokens` (N,) the
    likely size. `labels` (N, T) say how good the tier's answer was, 0..1; `written` (N, T) are its output tokens.
    """

    quality: Doubles
    expected_tokens: Doubles
    input_tokens: Doubles
    labels: Doubles
    written: Doubles

    def take(self, rows: NDArray[np.int64]) -> LabelledPrompts:
        """These rows only."""
        parts = (self.quality, self.expected_tokens, self.input_tokens, self.labels, self.written)
        return LabelledPrompts(*(part[rows] for part in parts))


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """An artifact with curves of one's own, not yet written, and what changed, JSON-ready."""

    artifact: Artifact
    report: dict[str, Any]

    def save(self, path: Path) -> str:
        """Write it; returns the new version."""
        made, base = self.artifact, self.artifact.version.rpartition("-")[0] or self.artifact.version
        names = list(made.domains), list(made.models)
        return save(path, made.weights, *names, base, made.card, made.embedder, made.sample)


def recalibrate(
    artifact: Artifact, labelled: LabelledPrompts, seed: int = 0, tiers: Collection[Tier] = TIERS
) -> Recalibrated:
    """The artifact with curves and sample of these labels; `seed` draws the split. Raises TrainingDataError.

    `tiers` are those that promises are made for: only prompts with a label in each of them can test one.
    """
    known = ~np.isnan(labelled.labels)
    _check(labelled, known)
    fit, tested = _split(known, [TIERS.index(tier) for tier in tiers], seed)
    weights, changes = _refitted(artifact.weights, labelled.take(fit))
    longer = weights.token_factor / artifact.weights.token_factor
    if tested.size:
        part = labelled.take(tested)
        sample = _moved(part.quality, part.expected_tokens, part.input_tokens, part.labels, changes, longer)
        drawn = f"half of the prompts labelled in {', '.join(tier for tier in TIERS if tier in tiers)}"
    else:
        old = artifact.sample
        sample = _moved(old.quality, old.output_tokens, old.input_tokens, old.labels, changes, longer)
        drawn = f"that of {artifact.version}, seen through the new curves"
    report = {
        "from": artifact.version,
        "prompts": int(known.any(axis=1).sum()),
        "fitted_on": int(fit.size),
        "sample": {
            "drawn": drawn,
            "prompts": len(sample),
            "labelled": {tier: int(n) for tier, n in zip(TIERS, (~np.isnan(sample.labels)).sum(axis=0), strict=True)},
            "labelled_in_all": int((~np.isnan(sample.labels)).all(axis=1).sum()),
        },
        "tiers": {
            tier: _tier_report(labelled.take(fit), column, changes[column], seed) for column, tier in enumerate(TIERS)
        },
    }
    card = {**artifact.card, "recalibrated": report, "calibration_sample": report["sample"]}
    return Recalibrated(replace(artifact, weights=weights, card=card, sample=sample), report)


def logits_of(quality: Doubles) -> Doubles:
    """Logits of predicted probabilities, any shape."""
    bounded = np.clip(quality, FLOOR, 1.0 - FLOOR)
    result: Doubles = np.log(bounded / (1.0 - bounded))
    return result


def _check(labelled: LabelledPrompts, known: NDArray[np.bool_]) -> None:
    count = int(known.any(axis=1).sum())
    if count < WANTED_PROMPTS or int(known.sum(axis=0).max(initial=0)) < WANTED_IN_TIER:
        raise TrainingDataError(
            f"{count} labelled prompts are too few to calibrate with; give at least {WANTED_PROMPTS}, {WANTED_IN_TIER} of them "
            f"in one tier ({WANTED_FOR_SAMPLE} that are labelled in every tier also give a sample of one's own for promises)"
        )
    values = labelled.labels[known]
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise TrainingDataError(f"labels must lie between 0 and 1, got {values.min()!r} to {values.max()!r}")


def _split(known: NDArray[np.bool_], columns: list[int], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on and rows of the sample, which are labelled in all of the columns; none of them in both."""
    whole = np.flatnonzero(known[:, columns].all(axis=1))
    tested = np.zeros(0, dtype=np.int64)
    if whole.size >= WANTED_FOR_SAMPLE:
        tested = np.sort(np.random.default_rng(seed).permutation(whole)[: whole.size // 2])
    fit = np.setdiff1d(np.flatnonzero(known.any(axis=1)), tested)
    return fit, tested


def _change(logit: Doubles, label: Doubles) -> Doubles:
    """Slope and shift (2,) of one tier's logits; (1, 0) for too few labels."""
    prior = np.array([1.0, 0.0])
    if label.size < WANTED_IN_TIER:
        return prior
    columns = np.stack((logit, np.ones(logit.size)), axis=1)
    found, _ = map_ability(columns, label, np.ones(label.size), prior, np.diag([SLOPE_SPREAD**2, SHIFT_SPREAD**2]))
    return np.array([max(float(found[0]), SMALLEST_SLOPE), float(found[1])])


def _refitted(weights: Weights, labelled: LabelledPrompts) -> tuple[Weights, Doubles]:
    logits = logits_of(labelled.quality)
    changes = np.zeros((len(TIERS), 2))
    half, factor = weights.half_width.copy(), weights.token_factor.copy()
    for column in range(len(TIERS)):
        use = ~np.isnan(labelled.labels[:, column])
        changes[column] = _change(logits[use, column], labelled.labels[use, column])
        width = _half_width(logits[use, column], labelled.labels[use, column])
        if width is not None:
            half[:, column] = max(half[0, column], width), width
        counted = ~np.isnan(labelled.written[:, column])
        factor[column] *= _token_change(labelled.written[counted, column], labelled.expected_tokens[counted, column])
    return replace(_changed(weights, changes), half_width=half, token_factor=factor), changes


def _changed(weights: Weights, changes: Doubles) -> Weights:
    """Weights whose logits of each tier are stretched and shifted; changes (T, 2)."""
    slope = weights.slope * changes[:, :1]
    offset = weights.offset * changes[:, 0] + changes[:, 1]
    # The levels of a tier's own are parts of its logits, so they are stretched too.
    stretch = np.ones(HEADS, dtype=np.float32)
    stretch[2 + OWN_LEVEL : 2 + OWN_LEVEL + len(TIERS)] = changes[:, 0]
    heads = {name: getattr(weights, name) * stretch for name in ("kernel", "core", "bias")}
    return replace(weights, slope=slope, offset=offset, **heads)


def _token_change(written: Doubles, expected: Doubles) -> float:
    """How many times longer the answers are than expected, drawn towards 1 while there are few."""
    if not written.size:
        return 1.0
    ratio = float(np.clip(written.sum() / max(float(expected.sum()), 1.0), 0.05, 20.0))
    return float(ratio ** (written.size / (written.size + TOKENS_PRIOR)))


def _cross_fitted(logit: Doubles, label: Doubles, seed: int = 0) -> Doubles:
    """Logits of every prompt by a change that was fitted without it."""
    place = np.random.default_rng(seed).permutation(label.size) % FOLDS
    found = logit.copy()
    for number in range(FOLDS):
        slope, shift = _change(logit[place != number], label[place != number])
        found[place == number] = slope * logit[place == number] + shift
    return found


def _half_width(logit: Doubles, label: Doubles) -> float | None:
    """The largest distance, in logits, of a fifth of the prompts from its prediction; None for cells too small to tell."""
    if label.size < FOLDS * CELL_PROMPTS:
        return None
    fitted = _cross_fitted(logit, label)
    misses = []
    for cell in np.array_split(np.argsort(fitted, kind="stable"), FOLDS):
        observed = (label[cell].sum() + 0.5) / (cell.size + 1.0)
        expected = float(qualities(fitted[cell, None]).mean())
        misses.append(abs(np.log(observed / (1 - observed)) - np.log(expected / (1 - expected))))
    return float(np.clip(max(misses), NARROWEST, WIDEST))


def _moved(
    quality: Doubles, tokens: Doubles, given: Doubles, labels: Doubles, changes: Doubles, longer: Doubles
) -> CalibrationSample:
    """A sample whose predictions are what the changed curves make of the old ones."""
    moved = qualities(logits_of(quality) * changes[:, 0] + changes[:, 1])
    return CalibrationSample(moved, np.clip(tokens * longer, *TOKEN_BOUNDS), given, labels)


def _tier_report(labelled: LabelledPrompts, column: int, change: Doubles, seed: int) -> dict[str, Any]:
    """Labels and change of one tier, and the log loss before and after, each prompt judged by a fit without it."""
    use = ~np.isnan(labelled.labels[:, column])
    label = labelled.labels[use, column]
    report: dict[str, Any] = {"labels": int(label.size), "slope": round(float(change[0]), 4)}
    report["shift"] = round(float(change[1]), 4)
    if label.size < WANTED_IN_TIER:
        return {**report, "note": f"fewer than {WANTED_IN_TIER} labels: the curve stays as it was"}
    logit = logits_of(labelled.quality[use, column])
    return {
        **report,
        "mean_label": round(float(label.mean()), 4),
        "predicted_before": round(float(qualities(logit[:, None]).mean()), 4),
        "log_loss_before": round(_log_loss(logit, label), 4),
        "log_loss_after": round(_log_loss(_cross_fitted(logit, label, seed), label), 4),
    }


def _log_loss(logit: Doubles, label: Doubles) -> float:
    return float(np.mean(np.logaddexp(0.0, logit) - label * logit))
