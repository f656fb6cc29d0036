"""Ratings stand in for outcomes that nobody recorded, less what they were off by on prompts with outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from router_models.router import Router
from router_models.tiers import TIERS
from router_models.training.everyday import DATASET, recorded_outcomes, recorded_ratings
from router_models.training.ratings import WANTED_ANCHORS, Rates, as_outcomes, corrected, usable_ratings, with_ratings

PROMPTS = 400
ROWS = pd.RangeIndex(PROMPTS)


def rated(rating: float = 0.9, count: int = PROMPTS) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"row": range(count), "tier": tier, "rating": rating}) for tier in TIERS])


def recorded(count: int, rate: float = 0.25) -> Rates:
    return {tier: np.where(count > ROWS, rate, np.nan) for tier in TIERS}


def test_ratings_are_shifted_by_what_they_are_off_on_recorded_prompts() -> None:
    truth = 1 / (1 + np.exp(-np.random.default_rng(0).normal(0.0, 1.0, PROMPTS)))
    generous = 1 / (1 + np.exp(-(np.log(truth / (1 - truth)) + 0.8)))
    rate = np.where(ROWS < PROMPTS // 2, truth, np.nan)
    assert corrected(generous, rate) == pytest.approx(truth)
    assert np.isnan(corrected(np.full(PROMPTS, np.nan), rate)).all()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_and_ratings_at_the_ends_are_corrected_too(rate: float) -> None:
    found = corrected(np.where(ROWS % 2 == 0, 0.0, 1.0), np.where(ROWS < 100, rate, np.nan))
    assert np.isfinite(found).all()
    assert abs(found[:100].mean() - rate) < 0.01


def test_only_prompts_that_no_tier_answered_take_their_ratings() -> None:
    rate = recorded(100)
    rate["premium"] = np.full(PROMPTS, np.nan)
    rate["economy"][100:200] = 0.5
    filled = with_ratings(rate, rated(), ROWS)
    assert filled["economy"][:100].tolist() == [0.25] * 100
    assert filled["economy"][100:200].tolist() == [0.5] * 100
    assert np.isnan(filled["premium"][:200]).all()
    assert filled["premium"][200:].tolist() == pytest.approx([0.9] * 200)
    assert 0.2 < filled["standard"][300] < 0.3


@pytest.mark.parametrize("count", [WANTED_ANCHORS - 1, WANTED_ANCHORS])
def test_too_few_prompts_to_correct_by_leave_all_ratings_out(count: int) -> None:
    rate = recorded(200)
    rate["premium"] = recorded(count)["premium"]
    assert len(usable_ratings(rated(), rate, ROWS)) == (3 * PROMPTS if count == WANTED_ANCHORS else 0)
    assert with_ratings(rate, rated().iloc[:0], ROWS)["economy"][:200].tolist() == [0.25] * 200


def test_ratings_are_outcomes_of_no_model_that_anybody_hears_of() -> None:
    names = set(as_outcomes(rated())["model"])
    card = Router.load().artifact.card
    assert not names & set(Router.load().artifact.models)
    assert not names & set(card["ability"])
    assert not names & set(recorded_outcomes()["model"])


def test_every_everyday_prompt_is_rated_for_every_tier_and_so_are_enough_others() -> None:
    ratings = recorded_ratings()
    assert ratings["rating"].between(0.0, 1.0).all()
    assert not ratings.duplicated(["dataset", "prompt_id", "tier"]).any()
    own = ratings["dataset"] == DATASET
    assert ratings[own].groupby("tier")["prompt_id"].nunique().tolist() == [ratings[own]["prompt_id"].nunique()] * 3
    assert ratings[~own].groupby("tier").size().min() >= 3 * WANTED_ANCHORS
