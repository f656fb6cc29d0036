"""How long answers are: one length per prompt and one talkativeness per model, so that every model helps to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.tiers import TIERS

ROUNDS = 30

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """`prompt` (N,): log tokens of an average model's answer, NaN where none was counted; `tier` (T,): added
    by the tier's models.
    """

    prompt: Doubles
    tier: Doubles


def read_lengths(rows: pd.Index[int], recorded: pd.DataFrame) -> Lengths:
    """Least squares on log tokens of all models with a tier, by turns for prompts and models."""
    written = recorded[recorded["out_tokens"].notna() & recorded["tier"].notna()]
    logs = np.log(written["out_tokens"].clip(lower=1.0).to_numpy(dtype=np.float64))
    models, model = np.unique(written["model"].to_numpy(dtype=str), return_inverse=True)
    prompts, prompt = np.unique(written["row"].to_numpy(), return_inverse=True)
    counts = np.bincount(prompt), np.bincount(model)
    talk, length = np.zeros(models.size), np.zeros(prompts.size)
    for _ in range(ROUNDS if models.size else 0):
        length = np.bincount(prompt, logs - talk[model]) / counts[0]
        talk = np.bincount(model, logs - length[prompt]) / counts[1]
        talk -= talk.mean()
    tiers = dict(zip(written["model"].astype(str), written["tier"], strict=True))
    added = [[value for name, value in zip(models, talk, strict=True) if tiers[name] == tier] for tier in TIERS]
    found = pd.Series(length, index=prompts, dtype="float64").reindex(rows).to_numpy()
    return Lengths(found, np.array([np.mean(values) if values else 0.0 for values in added]))
