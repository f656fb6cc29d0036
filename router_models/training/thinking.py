"""What the tables say about reasoning at length: pairs of models that answered the same prompts with and without it.

No provider's hidden reasoning tokens are recorded. What is: a model beside a sibling that was trained to reason or was seen to
do so, and how long the written reasoning of ordinary models is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.training.fit import Names, domain_weights

# (without, with, why they differ in reasoning and in little else)
PAIRS = (
    ("llama-3.1-nemotron-51b-instruct", "llama-3.3-nemotron-super-49b-v1", "one family and size; the second reasons"),
    ("gpt-4o-mini-2024-07-18", "o1-mini-2024-09-12", "one maker, year and class; the second reasons"),
    ("gpt-4o-2024-08-06", "o1-preview-2024-09-12", "one maker and year; the second reasons"),
    ("gpt-4-0613", "gpt-4-0314", "one model; only the second wrote out the steps that were asked for"),
)
# Written reasoning is read off the longer answers: of a prompt's models, the length that this share does not exceed.
LONGER = 0.75
WANTED_IN_DOMAIN = 20

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Thinking:
    """`gain` (N,): mean of score with reasoning minus without, over pairs; `log_written` (N,): log tokens of reasoning."""

    gain: Doubles
    log_written: Doubles


def read_thinking(rows: pd.Index[int], recorded: pd.DataFrame) -> Thinking:
    """For the prompts in `rows`; NaN where nothing was recorded."""
    scored = recorded[recorded["score"].notna()]
    found = []
    for without, reasons, _ in PAIRS:
        sides = [scored[scored["model"] == model].groupby("row")["score"].mean() for model in (without, reasons)]
        found.append((sides[1] - sides[0]).reindex(rows))
    gains = pd.concat(found, axis=1).mean(axis=1)
    written = recorded[recorded["out_tokens"].notna() & recorded["tier"].notna()]
    longer = written.groupby("row")["out_tokens"].quantile(LONGER).clip(lower=1.0)
    return Thinking(gains.to_numpy(dtype=np.float64), np.log(longer).reindex(rows).to_numpy(dtype=np.float64))


def believed(gain: Doubles, unseen: Doubles, domains: Names) -> tuple[float, float, dict[str, Any]]:
    """Mean gain, how much of a prediction's distance from it holds on domains that were left out (0..1), and a report.

    `unseen` (N,) are predictions by a head that had not seen the prompt's domain.
    """
    known = ~np.isnan(gain) & ~np.isnan(unseen)
    if not known.any():
        return 0.0, 0.0, {"prompts": 0}
    weights = domain_weights(domains[known])
    mean = float(np.average(gain[known], weights=weights))
    away, found = unseen[known] - mean, gain[known] - mean
    certain = float(np.sum(weights * away * found) / max(float(np.sum(weights * away**2)), 1e-9))
    by_domain = {
        str(name): {
            "prompts": int(rows.sum()),
            "recorded": round(float(gain[rows].mean()), 3),
            "predicted_without_it": round(float(unseen[rows].mean()), 3),
        }
        for name in np.unique(domains[known])
        if (rows := known & (domains == name)).sum() >= WANTED_IN_DOMAIN
    }
    pairs = [f"{reasons} over {without}: {why}" for without, reasons, why in PAIRS]
    report = {"prompts": int(known.sum()), "mean_gain": round(mean, 3), "pairs": pairs, "domains": by_domain}
    return mean, min(max(certain, 0.0), 1.0), report
