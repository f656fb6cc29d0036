"""Whether the predicted gain of thinking finds the prompts where reasoning at length helped; none of them was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.router import Router
from router_models.training.data import EVALUATION_ONLY, Tables
from router_models.training.thinking import PAIRS

# A research model of 2021 against itself with a hundred tries and a judge: more computing of another kind, on a set never seen.
OTHER_PAIRS = (
    ("openai-gsm8k/175b_finetuning", "openai-gsm8k/175b_verification", "one model; the second tries 100 times"),
)
WANTED_PROMPTS = 60
DRAWS = 200

Doubles = NDArray[np.float64]


def thinking_report(tables: Tables, router: Router, seed: int) -> list[dict[str, Any]]:
    """Per pair of models: mean gain with reasoning, of the half that the router would let think and of the other half.

    `difference` is the first minus the second with its 95 % bootstrap interval; above 0 means that the router chooses well.
    """
    every = tables.prompts
    usable = every[every["held_out"] & every["graded"] & (every["dataset"] != "mt_bench")]
    usable = usable[usable["dataset"].isin(EVALUATION_ONLY) | ~usable["overlaps"]]
    scored = tables.outcomes[tables.outcomes["row"].isin(usable.index) & tables.outcomes["score"].notna()]
    rows = []
    for without, reasons, why in (*PAIRS, *OTHER_PAIRS):
        plain, thinking = (
            scored[scored["model"] == name].groupby("row")["score"].mean() for name in (without, reasons)
        )
        gain = (thinking - plain).dropna()
        for kind, wanted in (("seen_domains", False), ("unseen_domains", True)):
            place = gain.index[every.loc[gain.index, "dataset"].isin(EVALUATION_ONLY) == wanted]
            if len(place) >= WANTED_PROMPTS:
                scores = [router.score_prompt(prompt) for prompt in every.loc[place, "prompt"]]
                predicted = np.array([score.thinking_gain for score in scores])
                found = _halves(predicted, gain[place].to_numpy(dtype=np.float64), seed)
                rows.append(
                    {"without": without, "with": reasons, "why": why, "prompts": len(place), "kind": kind, **found}
                )
    return rows


def _halves(predicted: Doubles, gain: Doubles, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    half = np.argsort(np.argsort(-(predicted + 1e-9 * rng.random(predicted.size)))) < predicted.size // 2
    draws = []
    for _ in range(DRAWS):
        pick = rng.integers(0, gain.size, gain.size)
        draws.append(float(gain[pick][half[pick]].mean() - gain[pick][~half[pick]].mean()))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "recorded_gain": round(float(gain.mean()), 4),
        "predicted_gain": round(float(predicted.mean()), 4),
        "upper_half": round(float(gain[half].mean()), 4),
        "lower_half": round(float(gain[~half].mean()), 4),
        "difference": [round(float(value), 4) for value in (gain[half].mean() - gain[~half].mean(), low, high)],
    }
