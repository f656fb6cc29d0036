"""Ratings stand in for rates that nobody recorded, less what the readers were too generous by on prompts with outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from router_models.tiers import TIERS
from router_models.training.everyday import RATED, recorded_outcomes
from router_models.training.model_tiers import tier_of
from router_models.training.ratings import WANTED_ANCHORS, with_ratings

ANCHORS = 200


def rated(count: int, rating: float) -> pd.DataFrame:
    return pd.DataFrame({"row": range(count), "model": RATED[0], "score": rating})


def test_ratings_are_shifted_by_what_they_are_off_on_recorded_prompts() -> None:
    rng = np.random.default_rng(0)
    truth = 1 / (1 + np.exp(-rng.normal(0.0, 1.0, 2 * ANCHORS)))
    generous = 1 / (1 + np.exp(-(np.log(truth / (1 - truth)) + 0.8)))
    scored = pd.DataFrame({"row": range(2 * ANCHORS), "model": RATED[0], "score": generous})
    rate = {tier: np.full(2 * ANCHORS, np.nan) for tier in TIERS}
    rate["economy"][:ANCHORS] = truth[:ANCHORS]
    filled = with_ratings(rate, scored, pd.RangeIndex(2 * ANCHORS))
    assert filled["economy"] == pytest.approx(truth)
    assert np.isnan(filled["standard"]).all()


def test_recorded_rates_stay_what_they_are() -> None:
    rate = {tier: np.full(ANCHORS, 0.25) for tier in TIERS}
    filled = with_ratings(rate, rated(ANCHORS, 0.9), pd.RangeIndex(ANCHORS))
    assert filled["economy"].tolist() == [0.25] * ANCHORS


def test_too_few_prompts_to_correct_by_leave_ratings_out() -> None:
    rows = pd.RangeIndex(ANCHORS)
    rate = {tier: np.where(rows < WANTED_ANCHORS - 1, 0.5, np.nan) for tier in TIERS}
    assert np.isnan(with_ratings(rate, rated(ANCHORS, 0.9), rows)["economy"][WANTED_ANCHORS:]).all()


def test_a_rating_is_no_model_of_any_tier() -> None:
    outcomes = recorded_outcomes()
    assert set(RATED) <= set(outcomes["model"])
    assert [tier_of(name) for name in RATED] == [None] * len(TIERS)
    assert outcomes.loc[outcomes["model"].isin(RATED), "score"].between(0.005, 0.995).all()
