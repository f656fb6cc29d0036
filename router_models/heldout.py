"""Whether recalibrated curves are better than those they come from, on labelled prompts that neither was fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Parts of a reliability diagram, with as many labels each.
PARTS = 10
# How sure the gain of log loss has to be.
CONFIDENCE = 0.95

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Calibration error and mean log loss by the curves before and after, over `labels` labels.

    `gain_low` is the lower bound, at CONFIDENCE, of how much lower the log loss is.
    """

    labels: int
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float
    gain_low: float

    @property
    def better(self) -> bool:
        """Whether the new curves are worth using: surely less loss, and no more calibration error."""
        return self.gain_low > 0.0 and self.error_after <= self.error_before

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, rounded."""
        names = ("error_before", "error_after", "loss_before", "loss_after", "gain_low")
        return {"labels": self.labels, **{name: round(getattr(self, name), 5) for name in names}}


def held_out(before: Doubles, after: Doubles, labels: Doubles) -> HeldOut:
    """Compare two artifacts' probabilities (N, T) with labels (N, T), NaN where nobody knows.

    Prompts count, so that several labels of one prompt are not several proofs.
    """
    known = ~np.isnan(labels)
    label, asked = labels[known], known.any(axis=1)
    losses = [np.where(known, _loss(chances, np.nan_to_num(labels)), 0.0) for chances in (before, after)]
    gains = ((losses[0] - losses[1]).sum(axis=1) / np.maximum(known.sum(axis=1), 1))[asked]
    spread = float(gains.std(ddof=1)) / sqrt(gains.size) if gains.size > 1 else float("inf")
    return HeldOut(
        labels=int(label.size),
        error_before=calibration_error(before[known], label),
        error_after=calibration_error(after[known], label),
        loss_before=float(losses[0][known].mean()) if label.size else 0.0,
        loss_after=float(losses[1][known].mean()) if label.size else 0.0,
        gain_low=float(gains.mean()) - NormalDist().inv_cdf(CONFIDENCE) * spread if gains.size else -float("inf"),
    )


def calibration_error(chances: Doubles, label: Doubles) -> float:
    """Mean distance of predicted and observed over PARTS parts with as many labels (N,) each; 0 for none."""
    if not label.size:
        return 0.0
    order = np.argsort(chances, kind="stable")
    parts = [part for part in np.array_split(order, PARTS) if part.size]
    return sum(part.size * abs(float(chances[part].mean() - label[part].mean())) for part in parts) / label.size


def _loss(chances: Doubles, label: Doubles) -> Doubles:
    result: Doubles = -(label * np.log(chances) + (1.0 - label) * np.log1p(-chances))
    return result
