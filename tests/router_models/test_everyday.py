"""The set of our own: prompts, their rules, what was recorded for them, and how a further model is recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from router_models.evaluation.everyday import everyday_report
from router_models.evaluation.target_table import _everyday
from router_models.router import Router
from router_models.training import everyday, record
from router_models.training.checks import grade
from router_models.training.data import Source, together, with_recorded
from tests.router_models.small_tables import made_up
from tests.running import Upstream, upstream


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream({"tiny": {"reply": "The answer is B. It is 4, so yes: Paris."}}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded folder of its own with three prompts."""
    checks = {"a": {"any": ["paris"]}, "b": {"number": 5}, "c": {"read": "it greets"}}
    prompts = [
        {"id": name, "kind": "chat", "prompt": f"prompt {name}", "check": check} for name, check in checks.items()
    ]
    monkeypatch.setattr(everyday, "PROMPTS", tmp_path / "everyday.jsonl")
    monkeypatch.setattr(everyday, "OUTCOMES", tmp_path / "outcomes.csv")
    everyday.PROMPTS.write_text("".join(json.dumps(each) + "\n" for each in prompts))
    return tmp_path


def test_every_prompt_has_a_name_of_its_own_and_a_rule_that_is_known() -> None:
    questions = everyday.everyday_questions()
    assert not [name for name, count in Counter(each["prompt_id"] for each in questions).items() if count > 1]
    for each in questions:
        assert each["prompt"].strip()
        grade(each["check"], "an answer")


def test_outcomes_are_scores_of_prompts_one_per_model() -> None:
    outcomes, known = everyday.recorded_outcomes(), set(everyday.everyday_prompts()["prompt_id"])
    assert not outcomes.duplicated(["dataset", "prompt_id", "model"]).any()
    assert outcomes["score"].between(0.0, 1.0).all()
    assert (outcomes.loc[~outcomes["model"].isin(everyday.RATED), "out_tokens"] > 0).all()
    own = outcomes[outcomes["dataset"] == everyday.DATASET]
    asked = own.groupby("model")["prompt_id"].agg(set)
    assert set(asked.index) == {"smollm2-135m-instruct", *everyday.RATED}
    assert all(names == known for names in asked)


def test_outcomes_of_tables_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    empty = pd.DataFrame({"dataset": [], "prompt_id": []}, dtype=str)
    prompts = empty.assign(prompt="", category="", stem_key="")
    source = Source(prompts, empty.assign(model="", score=0.0, out_tokens=1.0), empty)
    made = together(with_recorded(source))
    assert set(made.prompts["dataset"]) == {everyday.DATASET}
    assert made.prompts["trainable"].any()
    assert made.prompts["held_out"].any()
    assert set(made.outcomes["tier"]) <= {None}


def test_a_model_is_asked_graded_read_and_written(
    server: Upstream, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = folder / "answers.jsonl"
    asked = ["--model", "tiny", "--answers", str(answers)]
    assert record.main(["--url", server.url, *asked]) == 0
    assert "3 answers, 1 of them still to be read" in capsys.readouterr().out
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["score"] for row in rows] == [1.0, 0.0, None]
    assert all(row["out_tokens"] > 0 for row in rows)
    assert record.main([*asked, "--write"]) == 1
    assert "'c' has no score yet" in capsys.readouterr().err
    assert not everyday.OUTCOMES.exists()
    rows[2]["score"] = 0.5
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):  # a second time takes the place of the first
        assert record.main([*asked, "--write"]) == 0
        assert everyday.recorded_outcomes()["score"].tolist() == [1.0, 0.0, 0.5]


def test_prompts_of_the_tables_are_asked_where_a_rule_can_grade_them(tmp_path: Path) -> None:
    golds: list[dict[str, Any]] = [
        {"dataset": "mmlu_pro", "category": "law|ori_mmlu-law", "gold": "B"},
        {"dataset": "drift_prime", "category": "", "gold": "yes"},
        {"dataset": "llmrouter14", "category": "gsm8k", "gold": "2 * 1000 = 2000\n#### 2,000"},
        {"dataset": "llmrouter14", "category": "math", "gold": "so \\boxed{7}."},
        {"dataset": "llmrouter14", "category": "natural_qa", "gold": "Paris"},
        {"dataset": "llmrouter14", "category": "math", "gold": "\\boxed{x+1}"},
        {"dataset": "gsm8k_test", "category": "", "gold": "4"},
    ]
    rows = [
        {**each, "prompt_id": str(at), "prompt": f"p{at}", "stem_key": f"{at:016x}"} for at, each in enumerate(golds)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "prompts.parquet")
    pd.DataFrame({"dataset": ["mmlu_pro"], "prompt_id": ["9"]}).to_parquet(
        tmp_path / "overlap_with_routellm_eval.parquet"
    )
    checks = [each["check"] for each in record.benchmark_questions(tmp_path)]
    assert checks == [{"letter": "B"}, {"first": "yes"}, {"number": 2000.0}, {"number": 7.0}, {"any": ["Paris"]}]


@pytest.mark.parametrize("wanted", ["gold", "cannot be read"])
def test_tables_that_cannot_grade_are_refused(
    wanted: str, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if wanted == "gold":
        made_up(tmp_path)
    arguments = ["--url", "http://127.0.0.1:9/v1", "--model", "m", "--answers", str(folder / "a")]
    assert record.main([*arguments, "--data", str(tmp_path)]) == 1
    assert wanted in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["--url", "http://127.0.0.1:9/v1", "--model", "m", "--answers", str(folder / "a")]) == 1
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_the_bundled_artifact_tells_demanding_prompts_from_everyday_ones_and_knows_the_bundled_model() -> None:
    empty = pd.DataFrame({"dataset": [], "prompt_id": []}, dtype=str)
    prompts = empty.assign(prompt="", category="", stem_key="")
    source = Source(prompts, empty.assign(model="", score=0.0, out_tokens=1.0), empty)
    report = everyday_report(together(with_recorded(source)), Router.load(), seed=0)
    assert report["prompts"] > 100
    above = report["demanding_above_everyday"]
    assert above["artifact_difficulty"]["low"] > above["length"]["value"]
    (known,) = report["models"].values()
    assert known["everyday"]["brier"] < known["everyday"]["brier_as_economy"] / 2
    table = "\n".join(_everyday(report))
    assert "demanding above everyday" in table
    assert "smollm2-135m-instruct on everyday" in table
