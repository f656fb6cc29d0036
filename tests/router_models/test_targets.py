"""What training reads off outcomes: gains of thinking from pairs, one length per prompt, intervals that cover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from router_models.training.calibrate import half_widths_of
from router_models.training.lengths import read_lengths
from router_models.training.model_tiers import tier_of
from router_models.training.thinking import PAIRS, believed, read_thinking

TIER_NAMES = ("economy", "standard", "premium")


def outcomes(rows: list[tuple[int, str, float, float]]) -> pd.DataFrame:
    """Outcomes of (row, model, score, tokens), with the tier that the model stands for."""
    table = pd.DataFrame(rows, columns=["row", "model", "score", "out_tokens"])
    return table.assign(tier=[tier_of(model) for model in table["model"]])


def test_the_gain_of_thinking_is_the_mean_difference_of_pairs_that_both_answered() -> None:
    (plain, thinks, _), (other, other_thinks, _) = PAIRS[:2]
    table = outcomes(
        [
            (0, plain, 0.0, 10),
            (0, thinks, 1.0, 10),
            (0, other, 1.0, 10),
            (0, other_thinks, 1.0, 10),
            (1, plain, 1.0, 10),
            (1, thinks, 0.0, 10),
            (2, plain, 1.0, 10),
            (3, other_thinks, 1.0, 10),
        ]
    )
    found = read_thinking(pd.Index(range(5)), table)
    np.testing.assert_allclose(found.gain, [0.5, -1.0, np.nan, np.nan, np.nan])


def test_a_gain_that_left_out_domains_contradict_is_not_believed() -> None:
    rng = np.random.default_rng(0)
    domains = np.repeat(["a", "b", "c", "d"], 50)
    gain = np.repeat([0.3, 0.1, -0.1, -0.3], 50) + rng.normal(0, 0.1, 200)
    assert believed(gain, np.repeat([0.3, 0.1, -0.1, -0.3], 50), domains)[1] == pytest.approx(1.0, abs=0.1)
    assert believed(gain, -gain, domains)[1] == 0.0
    assert believed(np.full(200, np.nan), gain, domains)[:2] == (0.0, 0.0)


def test_lengths_of_prompts_and_tiers_are_told_apart_though_models_answered_different_prompts() -> None:
    rng = np.random.default_rng(1)
    talk = {"gemma-7b": 0.0, "llama-3.1-70b-instruct": 0.5, "gpt-4o-2024-08-06": 1.0}
    length = rng.normal(5.0, 1.0, 60)
    rows = [
        (row, model, 1.0, float(np.exp(length[row] + added)))
        for row in range(60)
        for place, (model, added) in enumerate(talk.items())
        if (row + place) % 3
    ]
    found = read_lengths(pd.Index(range(60)), outcomes(rows))
    np.testing.assert_allclose(np.diff(found.tier), [0.5, 0.5], atol=0.02)
    np.testing.assert_allclose(found.prompt - length, (found.prompt - length).mean(), atol=0.05)


def test_intervals_cover_nine_of_ten_cells_and_are_wider_where_the_unfamiliar_miss_more() -> None:
    rng = np.random.default_rng(2)
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    logits, familiarity = np.zeros((40_000, 3)), np.zeros(40_000)
    for cell in range(200):
        rows = np.arange(cell * 200, (cell + 1) * 200)
        known = rng.random()
        familiarity[rows] = known
        shift = rng.normal(0.0, 1.5 - known)
        answers.append((rows, (rng.random(200) < 1 / (1 + np.exp(-shift))).astype(float)))
    half = half_widths_of(logits, logits, familiarity, [answers] * len(TIER_NAMES))
    assert np.all(half[0] >= half[1])
    wide = half[0] + np.array([familiarity[rows[0]] for rows, _ in answers])[:, None] * (half[1] - half[0])
    missed = [abs(np.log((score.sum() + 0.5) / (200.5 - score.sum()))) for _, score in answers]
    assert 0.85 < np.mean(np.array(missed)[:, None] <= wide) <= 0.97
