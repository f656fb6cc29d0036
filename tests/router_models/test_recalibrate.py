"""Labels of one's own correct an artifact's levels and give it a sample of its own; too few, or odd ones, are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_models import Router
from router_models.errors import TrainingDataError
from router_models.features import extract
from router_models.floor import TierPrice, promise_table
from router_models.kept import fingerprint, pack
from router_models.labelled import KeptRequest, LabelledAnswer, gather, read_labels
from router_models.recalibrate import recalibrate
from router_models.request import RequestText
from router_models.tiers import TIERS, Tier

ROUTER = Router.load()
SUBJECTS = ("rivers", "primes", "taxes", "cells", "poems", "motors", "wars", "stars", "markets", "bridges")
PROMPTS = [
    f"What are {n} facts about {subject}, and why do {n + 3} of them matter?" for n in range(60) for subject in SUBJECTS
]


def answers(count: int, rates: dict[Tier, float], seed: int = 0, tokens: float | None = None) -> list[LabelledAnswer]:
    """Answers of each tier in `rates` to `count` prompts, right at that rate whatever the prompt."""
    rng = np.random.default_rng(seed)
    return [
        LabelledAnswer(prompt, tier, float(rng.random() < rate), output_tokens=tokens)
        for prompt in PROMPTS[:count]
        for tier, rate in rates.items()
    ]


def test_the_sample_holds_what_the_saved_artifact_predicts(tmp_path: Path) -> None:
    asked = answers(200, {"economy": 0.4, "premium": 0.9}, tokens=50.0)
    made = recalibrate(ROUTER.artifact, gather(ROUTER, asked), tiers=("economy", "premium"))
    made.save(tmp_path / "own.npz")
    served = Router.load(tmp_path / "own.npz")
    found = {
        (round(score.quality["economy"].p, 5), round(score.quality["premium"].p, 5))
        for score in (served.score_prompt(prompt) for prompt in PROMPTS[:200])
    }
    sample = made.artifact.sample
    assert {(round(row[0], 5), round(row[2], 5)) for row in sample.quality.tolist()} <= found


def test_requests_are_calibrated_on_their_kept_features_as_on_their_texts() -> None:
    known = answers(100, {"economy": 0.5})
    logged = [
        replace(answer, prompt=None, request=str(number), kept=kept_request(str(answer.prompt)))
        for number, answer in enumerate(known)
    ]
    texts, features = gather(ROUTER, known), gather(ROUTER, logged)
    np.testing.assert_allclose(features.quality, texts.quality, atol=0.02)
    np.testing.assert_array_equal(features.labels, texts.labels)
    assert features.input_tokens.tolist() == [7.0] * 100


def test_requests_with_features_of_another_release_are_left_out() -> None:
    old = replace(kept_request("How far?"), fingerprint="of another release")
    assert len(gather(ROUTER, [LabelledAnswer(None, "economy", 1.0, request="1", kept=old)]).labels) == 0
    assert len(gather(ROUTER, [LabelledAnswer(None, "economy", 1.0, request="1")]).labels) == 0


def kept_request(prompt: str) -> KeptRequest:
    features = extract(RequestText.from_prompt(prompt), ROUTER.artifact.embedder)
    return KeptRequest(pack(features), fingerprint(), False, 7.0)


def test_labels_move_the_level_of_their_tier_and_a_saved_artifact_serves_it(tmp_path: Path) -> None:
    rates: dict[Tier, float] = {"economy": 0.3, "premium": 0.95}
    made = recalibrate(ROUTER.artifact, gather(ROUTER, answers(400, rates, tokens=37.0)))
    version = made.save(tmp_path / "own.npz")
    served = Router.load(tmp_path / "own.npz")
    assert served.version == version != ROUTER.version
    assert served.card["recalibrated"]["from"] == ROUTER.version
    scores = [served.score_prompt(prompt) for prompt in PROMPTS[400:500]]
    assert np.mean([score.quality["economy"].p for score in scores]) == pytest.approx(0.3, abs=0.05)
    assert np.mean([score.quality["premium"].p for score in scores]) == pytest.approx(0.95, abs=0.04)
    assert np.mean([score.expected_output_tokens["economy"] for score in scores]) == pytest.approx(37.0, rel=0.25)
    economy = made.report["tiers"]["economy"]
    assert economy["log_loss_after"] < economy["log_loss_before"]
    assert "stays" in made.report["tiers"]["standard"]["note"]
    one, other = ((router.score_prompt(prompt) for router in (ROUTER, served)) for prompt in PROMPTS[:2])
    before, after = ((a.quality["economy"].p > b.quality["economy"].p) for a, b in zip(one, other, strict=True))
    assert before == after


def test_the_sample_of_ones_own_is_not_what_the_curves_were_fitted_on() -> None:
    labelled = gather(ROUTER, answers(300, {"economy": 0.6, "standard": 0.7, "premium": 0.8}))
    report = recalibrate(ROUTER.artifact, labelled).report
    assert report["prompts"] == 300
    assert report["fitted_on"] == report["sample"]["prompts"] == report["sample"]["labelled_in_all"] == 150
    made = recalibrate(ROUTER.artifact, labelled).artifact
    prices: dict[Tier, TierPrice] = {"economy": TierPrice(1.0, 1.0), "premium": TierPrice(10.0, 10.0)}
    assert promise_table(made.sample, prices, (0.6,)).labels == 150
    assert promise_table(made.sample, prices, (0.6,)).promises[0].possible


def test_prompts_that_lack_a_tier_correct_the_curves_and_do_not_take_the_promises_away() -> None:
    """Comparing two tiers labels nobody's answer of the third."""
    labelled = gather(ROUTER, answers(400, {"economy": 0.6, "premium": 0.8}))
    made = recalibrate(ROUTER.artifact, labelled)
    np.testing.assert_array_equal(made.artifact.sample.labels, ROUTER.artifact.sample.labels)
    assert made.report["fitted_on"] == 400
    prices = {tier: TierPrice(cost, cost) for tier, cost in zip(TIERS, (1.0, 5.0, 30.0), strict=True)}
    for sample in (ROUTER.artifact.sample, made.artifact.sample):
        assert promise_table(sample, prices, (0.8,)).promises[0].possible
    two = recalibrate(ROUTER.artifact, labelled, tiers=("economy", "premium"))
    assert (len(two.artifact.sample), two.report["sample"]["drawn"]) == (
        200,
        "half of the prompts labelled in economy, premium",
    )


def test_labels_of_one_tier_keep_the_sample_and_show_it_through_the_new_curves() -> None:
    made = recalibrate(ROUTER.artifact, gather(ROUTER, answers(200, {"economy": 0.1}))).artifact
    assert len(made.sample) == len(ROUTER.artifact.sample)
    np.testing.assert_array_equal(made.sample.labels, ROUTER.artifact.sample.labels)
    assert made.sample.quality[:, 0].mean() < ROUTER.artifact.sample.quality[:, 0].mean()
    np.testing.assert_allclose(made.sample.quality[:, 2], ROUTER.artifact.sample.quality[:, 2], atol=1e-6)


def test_few_labels_move_less_than_many() -> None:
    def moved(count: int) -> float:
        report = recalibrate(ROUTER.artifact, gather(ROUTER, answers(count, {"economy": 0.02}))).report
        return abs(float(report["tiers"]["economy"]["shift"]))

    assert 0.0 < moved(50) < moved(500)


def test_the_same_labels_and_seed_give_the_same_artifact(tmp_path: Path) -> None:
    labelled = gather(ROUTER, answers(200, {"economy": 0.5, "premium": 0.9}))
    first, second = (recalibrate(ROUTER.artifact, labelled, seed=3).save(tmp_path / name) for name in ("1", "2"))
    assert first == second
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 49])
def test_too_few_labels_are_refused_with_how_many_are_needed(count: int) -> None:
    with pytest.raises(TrainingDataError, match=rf"{count} labelled prompts are too few.*at least 50"):
        recalibrate(ROUTER.artifact, gather(ROUTER, answers(count, {"economy": 0.5})))


def test_labels_out_of_range_are_refused() -> None:
    labelled = gather(ROUTER, answers(60, {"economy": 0.5}))
    odd = replace(labelled, labels=labelled.labels + 1)
    with pytest.raises(TrainingDataError, match="between 0 and 1"):
        recalibrate(ROUTER.artifact, odd)


def test_answers_to_one_prompt_are_brought_together() -> None:
    labelled = gather(
        ROUTER,
        [
            LabelledAnswer("How far?", "economy", 0.0, output_tokens=10.0),
            LabelledAnswer("How far?", "economy", 1.0),
            LabelledAnswer("How far?", "premium", 1.0, request="another"),
        ],
    )
    assert labelled.labels[:, 0].tolist()[0] == 0.5
    assert labelled.labels.shape == (2, 3)
    assert labelled.written[0, 0] == 10.0
    assert np.isnan(labelled.written[1, 2])


def test_a_file_of_labels_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    lines = [
        {"prompt": "One?", "tier": "economy", "score": 1},
        {
            "messages": [{"role": "user", "content": "Two?"}],
            "tier": "premium",
            "score": 0.25,
            "output_tokens": 12,
            "model": "m",
        },
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    first, second = read_labels(path)
    assert (first.prompt, first.tier, first.score) == ("One?", "economy", 1.0)
    assert second == LabelledAnswer("Two?", "premium", 0.25, "m", 12.0)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nonsense", "line 1"),
        ("[]", "JSON object"),
        ('{"tier": "economy", "score": 1}', "either"),
        ('{"prompt": 5, "tier": "economy", "score": 1}', "prompt"),
        ('{"prompt": "x", "tier": "gold", "score": 1}', "gold"),
        ('{"prompt": "x", "tier": "economy", "score": 5}', "between 0 and 1"),
        ('{"prompt": "x", "tier": "economy", "score": true}', "number"),
        ('{"prompt": "x", "tier": "economy"}', "number"),
        ('{"prompt": "x", "tier": "economy", "score": 1, "output_tokens": -1}', "count"),
    ],
)
def test_a_line_that_says_nothing_is_refused_by_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(line)
    with pytest.raises(TrainingDataError, match=f"line 1.*{complaint}|{complaint}"):
        read_labels(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="nowhere"):
        read_labels(tmp_path / "nowhere")
