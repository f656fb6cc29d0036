"""A newcomer's ability, a ranking from one's own labels and a promised floor do on made-up outcomes what they say."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest

from router_models import Router, ability_from_benchmarks, learn_ability
from router_models.abilities import map_ability
from router_models.errors import TrainingDataError
from router_models.floor import CalibrationSample, TierPrice, promise_table
from router_models.local import learn_local, local_points
from router_models.threshold import promise_floor

ROUTER = Router.load()
ARTIFACT = ROUTER.artifact
EASY = [f"Tom has {n} apples and buys {n + 1} more. How many apples does he have?" for n in range(20)]
HARD = [
    f"Let $p > {n}$ be prime. Determine all integers $k$ for which the group of units modulo $p^{{{n + 2}}}$ has a subgroup of "
    f"index $k$ that is not normal in its wreath product with the symmetric group of degree {n + 3}, and prove your claim."
    for n in range(20)
]


def test_forty_labels_move_a_newcomer_to_its_own_rate_and_narrow_its_intervals() -> None:
    scores = [ROUTER.score_prompt(prompt) for prompt in EASY + HARD]
    nothing = learn_ability(ARTIFACT, "newcomer", [], [])
    weak = learn_ability(ARTIFACT, "newcomer", scores, [0.0] * 40)
    able = learn_ability(ARTIFACT, "newcomer", scores, [1.0] * 20 + [0.0] * 20)
    easy, hard = scores[0], scores[-1]
    assert weak.quality(easy).p < nothing.quality(easy).p
    assert able.quality(easy).p > able.quality(hard).p + 0.2
    width = {
        name: each.quality(easy).high - each.quality(easy).low for name, each in (("none", nothing), ("able", able))
    }
    assert width["able"] < width["none"]
    for each in (nothing, weak, able):
        found = each.quality(hard)
        assert 0.0 < found.low <= found.p <= found.high < 1.0


def test_a_single_model_is_less_certain_of_what_is_unfamiliar() -> None:
    known = ROUTER.ability(ARTIFACT.models[0])
    assert known is not None
    newcomer = learn_ability(ARTIFACT, "newcomer", [], [])
    score = ROUTER.score_prompt(EASY[0])
    for ability in (known, newcomer):
        found = [ability.quality(replace(score, familiarity=familiarity)) for familiarity in (0.0, 0.3, 0.6, 1.0)]
        widths = [logit(each.high) - logit(each.low) for each in found]
        assert len({each.p for each in found}) == 1
        assert widths == sorted(widths, reverse=True)
        # By as much as the tiers' intervals do, in squares; where all is familiar nothing is added.
        wide, narrow = ARTIFACT.weights.half_width.mean(axis=1)
        assert (widths[0] / 2) ** 2 - (widths[-1] / 2) ** 2 == pytest.approx(wide**2 - narrow**2)
        assert wide > 1.2 * narrow
    assert logit(found[-1].high) - logit(found[-1].p) > 1.645 * newcomer.missed


def test_gibberish_gets_a_wider_interval_than_a_familiar_question_of_about_the_same_probability() -> None:
    known = ROUTER.ability(ARTIFACT.models[0])
    assert known is not None
    gibberish = known.quality(ROUTER.score_prompt("zxqv wqrt plok mnbv flurbin gastrok vembly quintor"))
    plain = known.quality(ROUTER.score_prompt("What is the capital of France?"))
    assert logit(gibberish.high) - logit(gibberish.low) > 1.1 * (logit(plain.high) - logit(plain.low))


def logit(chance: float) -> float:
    return log(chance / (1.0 - chance))


def test_public_scores_give_a_first_guess_with_wider_intervals_than_labels() -> None:
    domain = "mmlu_pro/stemez-physics"
    strong = ability_from_benchmarks(ARTIFACT, "newcomer", {domain: 0.9})
    feeble = ability_from_benchmarks(ARTIFACT, "newcomer", {domain: 0.1})
    score = ROUTER.score_prompt(EASY[0])
    assert strong.quality(score).p > feeble.quality(score).p + 0.2
    labelled = learn_ability(ARTIFACT, "newcomer", [score] * 40, [1.0] * 36 + [0.0] * 4)
    assert np.trace(labelled.spread) < np.trace(strong.spread)


@pytest.mark.parametrize("scores", [{}, {"no such domain": 0.5}, {"math_level5": 1.5}])
def test_odd_benchmark_scores_are_refused(scores: dict[str, float]) -> None:
    with pytest.raises(TrainingDataError):
        ability_from_benchmarks(ARTIFACT, "newcomer", scores)


@pytest.mark.parametrize("labels", [[0.5], [2.0, 0.0], [float("nan"), 1.0]])
def test_odd_labels_are_refused(labels: list[float]) -> None:
    scores = [ROUTER.score_prompt(prompt) for prompt in EASY[:2]]
    with pytest.raises(TrainingDataError):
        learn_ability(ARTIFACT, "newcomer", scores, labels)


def test_recorded_models_keep_what_was_learnt_of_them() -> None:
    known = ROUTER.ability(ARTIFACT.models[0])
    assert known is not None
    assert known.model == ARTIFACT.models[0]
    assert ROUTER.ability("never heard of") is None


def test_the_posterior_mode_is_where_the_slope_vanishes() -> None:
    rng = np.random.default_rng(0)
    shown = np.concatenate((np.ones((60, 1)), rng.normal(size=(60, 2))), axis=1)
    labels = (rng.random(60) < 0.6).astype(float)
    prior, spread = np.array([0.3, 0.5, -0.2]), np.diag([1.0, 0.5, 0.25])
    vector, covariance = map_ability(shown, labels, np.ones(60), prior, spread)
    rate = 1.0 / (1.0 + np.exp(-shown @ vector))
    slope = shown.T @ (labels - rate) - np.linalg.inv(spread) @ (vector - prior)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    assert np.all(np.linalg.eigvalsh(spread - covariance) > 0)


def test_a_local_model_learns_which_prompts_gain() -> None:
    points = local_points(ROUTER, EASY + HARD)
    gain = np.repeat((0.0, 1.0), 20)[:, None]
    even = np.arange(40) % 2 == 0
    found = learn_local(points[even], gain[even], penalty=1.0).predict(points[~even])[:, 0]
    assert found[10:].min() > found[:10].max()


def test_a_local_model_needs_labels_that_fit_its_prompts() -> None:
    points = local_points(ROUTER, EASY)
    with pytest.raises(TrainingDataError, match="at least"):
        learn_local(points[:5], np.zeros((5, 1)))
    with pytest.raises(TrainingDataError, match="one row each"):
        learn_local(points, np.zeros((19, 1)))
    with pytest.raises(TrainingDataError, match="finite"):
        learn_local(points, np.full((20, 1), np.nan))


def made_up_traffic(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks, and labels of a strong model (.85) and of one that is worse the higher the rank."""
    rank = rng.random(count)
    strong = (rng.random(count) < 0.85).astype(float)
    weak = strong * (rng.random(count) > rank**2)
    return rank, weak, strong


def test_a_promised_floor_is_kept_by_nearly_all_deployments_and_saves_calls() -> None:
    rank, weak, strong = made_up_traffic(np.random.default_rng(0), 200_000)
    kept, shares = [], []
    for draw in range(200):
        promise = promise_floor(*made_up_traffic(np.random.default_rng([1, draw]), 500), floor=0.95)
        up = rank >= promise.threshold
        kept.append(np.where(up, strong, weak).mean() >= 0.95 * strong.mean())
        shares.append(up.mean())
    assert np.mean(kept) >= 0.95
    assert np.mean(shares) < 0.8


def test_nothing_is_promised_when_the_weak_model_never_helps() -> None:
    rng = np.random.default_rng(0)
    promise = promise_floor(rng.random(300), np.zeros(300), np.ones(300))
    assert not promise.possible or promise.share_up >= 0.95
    assert promise.kept_low >= 0.95


def test_two_tiers_chosen_by_rank_are_promised_what_the_same_choices_by_worth_are() -> None:
    """One test for both: where worth times quality orders prompts as the rank does, they end at the same prompts."""
    rank, weak, strong = made_up_traffic(np.random.default_rng(3), 2000)
    by_rank = promise_floor(rank, weak, strong, floor=0.9)
    columns = (
        np.stack((0.1 * np.ones(2000), np.zeros(2000), 0.1 + 0.5 * rank), axis=1),
        np.ones((2000, 3)),
        np.ones(2000),
    )
    sample = CalibrationSample(*columns, np.stack((weak, np.full(2000, np.nan), strong), axis=1))
    by_worth = promise_table(
        sample, {"economy": TierPrice(0, 0), "premium": TierPrice(0, 0, flat=1.0)}, (0.9,)
    ).promises[0]
    assert by_rank.share_up == pytest.approx(by_worth.share["premium"], abs=0.025), "in steps of 2 % and of 1 %"
    assert by_rank.kept_low >= 0.9
    assert by_worth.kept_low >= 0.9


def test_promises_without_enough_labels_or_sense_are_refused() -> None:
    few, many = np.zeros(10), np.zeros(100)
    with pytest.raises(TrainingDataError, match="50 prompts"):
        promise_floor(few, few, few)
    with pytest.raises(TrainingDataError, match=r"1\.5"):
        promise_floor(many, many, many, floor=1.5)
