"""Draws the calibration sample of an artifact: what it predicts for prompts it was not fitted on, beside what was recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from router_models.floor import CalibrationSample
from router_models.router import Router
from router_models.tiers import TIERS
from router_models.training.data import Tables

# As the gateway guesses the size of a prompt.
BYTES_PER_TOKEN = 4


def draw_sample(router: Router, tables: Tables) -> CalibrationSample:
    """All prompts of the tables that are kept for promises, in their order; a label is the mean score of a tier's models."""
    prompts = tables.prompts[tables.prompts["for_promises"]]
    if prompts.empty:
        return CalibrationSample.empty()
    scores = [router.score_prompt(prompt) for prompt in prompts["prompt"]]
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index) & tables.outcomes["score"].notna()]
    recorded = recorded.assign(score=recorded["score"].clip(0.0, 1.0))
    labels = recorded.pivot_table(index="row", columns="tier", values="score", aggfunc="mean")
    return CalibrationSample(
        quality=np.array([[score.quality[tier].p for tier in TIERS] for score in scores]),
        output_tokens=np.array([[score.expected_output_tokens[tier] for tier in TIERS] for score in scores]),
        input_tokens=np.array(
            [len(prompt.encode("utf-8", "replace")) // BYTES_PER_TOKEN for prompt in prompts["prompt"]]
        ),
        labels=labels.reindex(index=prompts.index, columns=list(TIERS)).to_numpy(dtype=np.float64),
    )


def sample_card(sample: CalibrationSample, drawn: str) -> dict[str, Any]:
    """What the card says of a sample: how it was drawn, how many prompts, how many labels by tier, how many with all."""
    known = ~np.isnan(sample.labels)
    return {
        "drawn": drawn,
        "prompts": len(sample),
        "labelled": {tier: int(count) for tier, count in zip(TIERS, known.sum(axis=0), strict=True)},
        "labelled_in_all": int(known.all(axis=1).sum()),
    }
