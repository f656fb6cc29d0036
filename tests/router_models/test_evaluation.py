"""The evaluation measures what it says: known rankings get known numbers, and the tier rule keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_models import Router
from router_models.evaluation.baselines import length, oracle, subject_gain
from router_models.evaluation.calibration import error_by_chance
from router_models.evaluation.few_labels import few_labels_report
from router_models.evaluation.nine_models import area
from router_models.evaluation.promises import promises_report
from router_models.evaluation.routellm import PairedOutcomes, curve, gap_recovered
from router_models.evaluation.routing import cheapest_good_enough
from router_models.evaluation.wording import unfamiliarity_report, wording_report
from router_models.training.calibrate import calibration_error

RNG = np.random.default_rng(0)


def pairs(count: int = 4000) -> PairedOutcomes:
    weak = (RNG.random(count) < 0.6).astype(float)
    strong = np.maximum(weak, (RNG.random(count) < 0.5).astype(float))
    return PairedOutcomes("made_up", ["p"] * count, [f"s{i % 7}" for i in range(count)], weak, strong)


def test_a_random_router_recovers_half_of_the_gap() -> None:
    data = pairs()
    found = gap_recovered(RNG.random(4000), data, seed=0, resamples=50)
    assert found.apgr == pytest.approx(0.5, abs=0.03)
    assert found.low < 0.5 < found.high
    assert found.cpt50 == pytest.approx(50, abs=5)


def test_the_oracle_recovers_more_than_any_and_its_opposite_less() -> None:
    data = pairs()
    best = oracle(data, seed=0)
    assert gap_recovered(best, data, 0, 10).apgr > 0.85
    assert gap_recovered(-best, data, 0, 10).apgr < 0.15
    # A fifth of the prompts hold the whole gain.
    assert gap_recovered(best, data, 0, 10).cpt80 < 25


def test_the_curve_runs_from_always_weak_to_always_strong() -> None:
    data = pairs()
    shares, qualities = curve(RNG.random(4000), data.weak, data.strong)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert qualities[0] == pytest.approx(data.weak.mean())
    assert qualities[-1] == pytest.approx(data.strong.mean())
    assert np.all(np.diff(shares) > 0)


def test_the_subject_baseline_never_sees_the_prompts_own_outcome() -> None:
    data = PairedOutcomes("x", ["a"] * 3, ["s", "s", "t"], np.zeros(3), np.array([1.0, 0.0, 1.0]))
    assert subject_gain(data).tolist() == [0.0, 1.0, 0.0]
    assert length(["a", "abc"]).tolist() == [1.0, 3.0]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=20), st.floats(0, 1))
def test_the_tier_rule_takes_the_first_tier_that_is_good_enough(rows: list[list[float]], ratio: float) -> None:
    quality = np.array(rows)
    for row, place in zip(quality, cheapest_good_enough(quality, ratio), strict=True):
        assert row[place] >= ratio * row.max()
        assert all(row[cheaper] < ratio * row.max() for cheaper in range(place))


def test_the_calibration_error_is_zero_for_true_rates_and_the_shift_for_shifted_ones() -> None:
    probability = np.linspace(0.1, 0.8, 1000)
    assert calibration_error(probability, probability) == pytest.approx(0.0)
    assert calibration_error(probability, probability + 0.1) == pytest.approx(0.1)


def test_the_error_by_chance_is_what_true_predictions_show() -> None:
    probability = np.linspace(0.2, 0.9, 1000)
    answers = np.full(1000, 2)
    shown = [calibration_error(probability, RNG.binomial(answers, probability) / answers) for _ in range(200)]
    assert error_by_chance(probability, answers) == pytest.approx(np.mean(shown), rel=0.1)
    assert error_by_chance(probability, 16 * answers) == pytest.approx(np.mean(shown) / 4, rel=0.15)


def test_the_area_is_the_mean_quality_over_budgets_under_the_upper_hull() -> None:
    prices = np.array([1.0, 3.0])
    assert area(np.array([1.0, 3.0]), np.array([0.4, 0.8]), prices) == pytest.approx(0.6, abs=1e-6)
    # A point under the line from cheapest to dearest is never worth buying; a dear and bad one even less.
    assert area(np.array([1.0, 2.0, 3.0, 3.0]), np.array([0.4, 0.5, 0.8, 0.1]), prices) == pytest.approx(0.6, abs=1e-6)
    assert area(np.array([1.0, 1.0]), np.array([0.4, 0.7]), prices) == pytest.approx(0.7, abs=1e-6)
    rng = np.random.default_rng(4)
    better = area(rng.uniform(1, 3, 20), rng.uniform(0.6, 0.7, 20), prices)
    assert 0.6 < better < 0.7


def test_a_plea_is_measured_as_what_it_does_to_the_rank() -> None:
    prompts = ["Name three rivers in Africa.", "Prove that the square root of two is irrational.", "Hello!"]
    report = wording_report(Router.load(), prompts)
    assert report["prompts"] == 3
    assert report["passed_by_three_chosen"]["largest"] >= report["passed_by_one_plea"]["largest"] >= 0.0
    assert report["passed_by_three_chosen"]["largest"] <= 1.0


def test_words_that_make_a_prompt_unfamiliar_are_counted_among_those_that_were_familiar() -> None:
    easy = ["What is the capital of France?", "Who wrote Hamlet?", "Tell me a joke", "Write a haiku about autumn."]
    report = unfamiliarity_report(Router.load(), [*easy, "zxqv wqrt plok mnbv flurbin gastrok"])
    assert (report["prompts"], report["unfamiliar_before"]) == (4, 1)
    turned = report["turned"]
    assert turned["any"] >= max(turned["one_nonsense"], turned["one_foreign"]) > 0.0
    assert unfamiliarity_report(Router.load(), [])["turned"]["any"] is None


def test_promises_are_judged_on_prompts_that_neither_learnt_nor_tested() -> None:
    data = pairs(400)
    rank = 1.0 - data.weak + 0.1 * RNG.random(400)
    report = promises_report(data, rank, Router.load(), seed=0, deployments=20)
    assert report["labels_to_learn"] == report["labels_to_test"] == 100
    # Ranked by what the weak model gets wrong, few strong calls keep the promise.
    assert report["rows"]["artifact_0.9"]["kept"] >= 0.9
    assert report["rows"]["artifact_0.9"]["share_to_strong"] < report["rows"]["local_0.9"]["share_to_strong"]


def test_a_few_labels_are_learnt_from_prompts_that_are_not_judged() -> None:
    easy = [f"How many are {n} and {n + 1}?" for n in range(60)]
    hard = [f"Prove that the operator of index {n} is compact on the dual of its domain." for n in range(60)]
    gain = np.repeat((0.0, 1.0), 60)
    data = PairedOutcomes("made_up", easy + hard, ["one"] * 120, 1.0 - gain, np.ones(120))
    report = few_labels_report(data, Router.load(), seed=0, labels=60)
    assert report["labels"] == 60
    # Half of the prompts hold the whole gain, so a perfect ranking has three quarters of the area.
    assert report["rows"]["local"]["apgr"] == pytest.approx(0.75, abs=0.04)
    assert "subject_mean" not in report["rows"]
