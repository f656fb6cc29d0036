"""Training on a small made-up table gives a loadable, reproducible artifact that has learnt the table's pattern."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_models import Router
from router_models.errors import TrainingDataError
from router_models.features import extract
from router_models.request import RequestText
from router_models.training.__main__ import main
from router_models.training.corpus import (
    Scaling,
    points,
    read_corpus,
    resemblance,
    standard_core,
    unseen_shares,
)
from router_models.training.data import EVALUATION_ONLY, Tables, domain_of, is_held_out, load_tables, prepare
from router_models.training.item_response import fit_scale
from router_models.training.model_tiers import NO_TIER, TIER_MODELS, tier_of
from router_models.training.train import train
from tests.router_models.small_tables import made_up


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tables(folder: Path) -> Tables:
    return load_tables(folder)


def test_the_command_trains_a_loadable_artifact_and_prints_its_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.npz"
    assert main(["--data", str(folder), "--out", str(out)]) == 0
    card = json.loads(capsys.readouterr().out)
    router = Router.load(out)
    assert card["artifact"] == router.version
    assert card["prompts"] == router.card["prompts"]
    easy = router.score_prompt("add the small numbers 91 and 12")
    hard = router.score_prompt("prove the conjecture about manifolds 91 and 12")
    assert hard.difficulty > easy.difficulty + 0.3
    assert hard.expected_output_tokens["economy"] > 3 * easy.expected_output_tokens["economy"]
    assert easy.quality["economy"].p > 0.6


def test_the_same_tables_and_seed_give_the_same_bytes(tables: Tables, tmp_path: Path) -> None:
    first, second = tmp_path / "1.npz", tmp_path / "2.npz"
    assert train(tables, first, seed=5).version == train(tables, second, seed=5).version
    assert first.read_bytes() == second.read_bytes()


def test_training_and_serving_place_prompts_alike(tables: Tables, tmp_path: Path) -> None:
    prompts = ["add the small numbers 1 and 2", "prove it again and again", "", "東京 apples 42?"]
    train(tables, tmp_path / "a.npz")
    router = Router.load(tmp_path / "a.npz")
    weights = router.artifact.weights
    corpus = read_corpus(prompts, router.artifact.embedder)
    scaling = Scaling(weights.centre, weights.scale, weights.middle, weights.pull)
    near = resemblance(points(corpus, scaling), weights.landmarks)
    heads = near @ weights.kernel + standard_core(corpus, scaling) @ weights.core + weights.bias
    shares = unseen_shares(corpus, np.unpackbits(weights.seen, bitorder="little").astype(bool))
    for row, prompt in enumerate(prompts):
        features = extract(RequestText.from_prompt(prompt), router.artifact.embedder)
        placed = router.place(features)
        np.testing.assert_allclose(placed.near, near[row], atol=1e-5)
        np.testing.assert_allclose(placed.heads, heads[row], atol=2e-2)
        assert router.unseen_share(features) == pytest.approx(shares[row])


def test_held_out_and_overlapping_prompts_are_not_trained_on(tables: Tables) -> None:
    prompts = tables.prompts
    assert prompts.loc[prompts["held_out"], "trainable"].sum() == 0
    assert 0.1 < prompts["held_out"].mean() < 0.3
    repeated = prompts[(prompts["dataset"] == "math_level5") & (prompts["prompt_id"] == "prove -5")]
    assert repeated["overlaps"].all()
    assert not repeated["trainable"].any()


def test_an_eighth_is_kept_for_promises_and_neither_trained_on_nor_judged(tables: Tables, tmp_path: Path) -> None:
    prompts = tables.prompts
    kept = prompts["for_promises"]
    assert 0.05 < kept.mean() < 0.17
    assert not (kept & (prompts["trainable"] | prompts["held_out"] | prompts["overlaps"])).any()
    train(tables, tmp_path / "a.npz")
    router = Router.load(tmp_path / "a.npz")
    sample = router.artifact.sample
    assert len(sample) == kept.sum() == router.card["calibration_sample"]["prompts"]
    first = prompts.index[kept][0]
    recorded = tables.outcomes[(tables.outcomes["row"] == first) & (tables.outcomes["tier"] == "premium")]
    assert sample.labels[0, 2] == recorded["score"].mean()
    score = router.score_prompt(prompts.loc[first, "prompt"])
    assert sample.quality[0, 0] == pytest.approx(score.quality["economy"].p, abs=1e-6)


@given(st.sampled_from(sorted(EVALUATION_ONLY)), st.integers(0, 2**64 - 1))
def test_sets_kept_for_evaluation_are_always_held_out(dataset: str, stem: int) -> None:
    assert is_held_out(dataset, f"{stem:016x}")


@given(st.integers(0, 2**64 - 1))
def test_a_fifth_of_the_other_sets_is_held_out_by_stem(stem: int) -> None:
    assert is_held_out("mmlu_pro", f"{stem:016x}") == (stem % 5 == 0)


def test_prompts_with_a_question_of_the_evaluation_are_overlaps_even_when_unlisted() -> None:
    columns = ["dataset", "prompt_id", "prompt", "category", "stem_key"]
    prompts = pd.DataFrame(
        [("gsm8k_test", "1", "q", "", "0000000000000001"), ("mmlu_pro", "1", "q", "m|x-y", "0000000000000001")],
        columns=columns,
    )
    outcomes = pd.DataFrame({"dataset": [], "prompt_id": [], "model": [], "score": [], "out_tokens": []})
    prepared = prepare(prompts, outcomes, pd.DataFrame({"dataset": [], "prompt_id": []}))
    assert prepared.prompts["overlaps"].tolist() == [True, True]
    assert prepared.prompts["trainable"].tolist() == [False, False]


def test_domains_group_like_prompts() -> None:
    assert domain_of("llmrouter14", "mbpp") == "llmrouter14/mbpp"
    assert domain_of("mmlu_pro", "physics|stemez-Optics") == "mmlu_pro/stemez-physics"
    assert domain_of("mmlu_pro", "chemistry|scibench-quan") == "mmlu_pro/scibench"
    assert domain_of("drift_prime", "prime") == "drift"


def test_no_model_stands_for_two_tiers() -> None:
    names = [name for models in TIER_MODELS.values() for name in models] + list(NO_TIER)
    assert len(names) == len(set(names))
    assert tier_of("Meta-Llama-3_1-8B-Instruct") == tier_of("Meta-Llama-3.1-8B-Instruct") == "economy"
    assert tier_of("never heard of") is None


def test_the_item_response_scale_recovers_the_order_of_abilities_and_difficulties() -> None:
    rng = np.random.default_rng(1)
    hard = np.linspace(-2, 2, 80)
    rows = [
        (row, model, float(rng.random() < 1 / (1 + np.exp(hard[row] - ability))))
        for row in range(80)
        for model, ability in (("a", -1.0), ("b", 0.0), ("c", 1.0), ("d", 2.0))
    ]
    scale = fit_scale(pd.DataFrame(rows, columns=["row", "model", "score"]), pd.Series(["one domain"] * 80))
    assert scale.ability["a"] < scale.ability["b"] < scale.ability["c"] < scale.ability["d"]
    found = [scale.difficulty[row] for row in range(80)]
    assert np.corrcoef(found, hard)[0, 1] > 0.6


def test_a_prompt_that_few_models_answered_is_held_to_be_like_its_kind() -> None:
    models = [(f"m{number}", number / 4) for number in range(-8, 8)]
    rng = np.random.default_rng(2)

    def asked(row: int, hard: float, by: list[tuple[str, float]]) -> list[tuple[int, str, float]]:
        return [(row, name, float(rng.random() < 1 / (1 + np.exp(hard - able)))) for name, able in by]

    known = [each for row in range(200) for each in asked(row, 0.0, models)]
    # Sixty easy prompts that the weakest model alone was asked: it does as well on them as a far stronger one elsewhere.
    easy = [each for row in range(200, 260) for each in asked(row, -4.0, models[:1])]
    domains = pd.Series(["mixed"] * 200 + ["easy"] * 60)
    scale = fit_scale(pd.DataFrame([*known, *easy], columns=["row", "model", "score"]), domains)
    found = np.array([scale.difficulty[row] for row in range(260)])
    assert found[200:].mean() < -2.5
    assert abs(found[:200].mean()) < 0.7


def test_a_missing_table_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "none.npz"
    assert main(["--data", str(tmp_path), "--out", str(out)]) == 1
    assert "prompts.parquet" in capsys.readouterr().err
    assert not out.exists()


def test_a_table_without_a_column_is_refused_with_the_column(folder: Path, tmp_path: Path) -> None:
    for name in ("prompts", "outcomes", "overlap_with_routellm_eval"):
        (tmp_path / f"{name}.parquet").write_bytes((folder / f"{name}.parquet").read_bytes())
    pd.read_parquet(folder / "outcomes.parquet").drop(columns="score").to_parquet(tmp_path / "outcomes.parquet")
    with pytest.raises(TrainingDataError, match="score"):
        load_tables(tmp_path)


def test_a_damaged_table_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.parquet").write_bytes((folder / "prompts.parquet").read_bytes()[:500])
    with pytest.raises(TrainingDataError, match="cannot be read"):
        load_tables(tmp_path)


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="too few"):
        train(load_tables(made_up(tmp_path, per_pattern=3)), tmp_path / "a.npz")
