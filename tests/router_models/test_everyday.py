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
from router_models.training.data import Source, read_source, together, with_recorded
from tests.router_models.small_tables import made_up
from tests.running import Upstream, upstream

BUNDLED = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    scripts: dict[str, Any] = {
        "tiny": {"reply": "The answer is B. It is 4, so yes: Paris."},
        "flaky": {"behaviour": "flaky", "fail_every": 2, "reply": "Paris"},
        "silent": {"usage": "omit", "reply": "Paris"},
    }
    with upstream(scripts) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recorded folder of its own with three prompts."""
    checks = {"a": {"any": ["paris"]}, "b": {"number": 5}, "c": {"read": "it greets"}}
    prompts = [
        {"id": name, "kind": "chat", "prompt": f"prompt {name}", "check": check} for name, check in checks.items()
    ]
    (tmp_path / "everyday.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    return tmp_path


def asked(folder: Path, *more: str, model: str = "tiny") -> list[str]:
    return ["--model", model, "--answers", str(folder / "answers"), "--recorded", str(folder), *more]


def answers(folder: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "answers").read_text().splitlines()]
    return {row["prompt_id"]: row for row in rows}


def rewrite(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    (folder / "answers").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def linked() -> Source:
    """A table of one prompt that the bundled model was recorded on."""
    known = everyday.recorded_outcomes().query("dataset == 'mmlu_pro'").iloc[:1]
    prompts = known[["dataset", "prompt_id"]].assign(prompt="What is it?", category="law|stemez-Law", stem_key="a" * 16)
    nothing = pd.DataFrame({"dataset": [], "prompt_id": []}, dtype=str)
    return Source(prompts, known.iloc[:0], nothing)


def test_every_prompt_has_a_name_of_its_own_and_a_rule_that_is_known() -> None:
    questions = everyday.everyday_questions()
    for name in ("prompt_id", "prompt"):
        assert not [each for each, count in Counter(q[name].strip().lower() for q in questions).items() if count > 1]
    for each in questions:
        assert each["prompt"].strip()
        grade(each["check"], "an answer")


def test_outcomes_are_scores_of_prompts_one_per_model() -> None:
    outcomes, known = everyday.recorded_outcomes(), set(everyday.everyday_prompts()["prompt_id"])
    assert not outcomes.duplicated(["dataset", "prompt_id", "model"]).any()
    assert outcomes["score"].between(0.0, 1.0).all()
    own = outcomes[outcomes["dataset"] == everyday.DATASET]
    assert set(own["prompt_id"]) <= known
    assert set(own.loc[own["model"] == BUNDLED, "prompt_id"]) == known


def test_our_prompts_join_tables_that_something_links_them_to() -> None:
    made = together(with_recorded(linked()))
    count = len(everyday.everyday_prompts())
    assert len(made.prompts) == count + 1
    assert made.prompts["trainable"].sum() > count / 2
    assert made.prompts["held_out"].sum() > count / 10
    assert (made.outcomes["model"] == BUNDLED).sum() == count + 1
    assert made.outcomes["tier"].isna().all()
    assert made.ratings.groupby("tier").size().min() >= count


def test_tables_that_nothing_links_to_ours_stay_alone(tmp_path: Path) -> None:
    source = read_source(made_up(tmp_path))
    assert with_recorded(source) == [source]


def test_a_model_is_asked_graded_read_and_written(
    server: Upstream, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(asked(folder, "--url", server.url)) == 0
    assert "3 answers, 1 of them still to be read" in capsys.readouterr().out
    rows = answers(folder)
    assert {name: row["score"] for name, row in rows.items()} == {"a": 1.0, "b": 0.0, "c": None}
    assert all(row["out_tokens"] > 0 and not row["cut"] for row in rows.values())
    assert record.main(asked(folder, "--write")) == 1
    assert "'c' has the score None" in capsys.readouterr().err
    assert not (folder / "outcomes.csv").exists()
    rows["c"]["score"] = 0.5
    rewrite(folder, rows)
    for _ in range(2):  # a second time takes the place of the first
        assert record.main(asked(folder, "--write")) == 0
        assert sorted(everyday.recorded_outcomes(folder)["score"]) == [0.0, 0.5, 1.0]


def test_what_was_read_is_kept_and_only_what_is_missing_is_asked_again(server: Upstream, folder: Path) -> None:
    assert record.main(asked(folder, "--url", server.url)) == 0
    rows = answers(folder)
    rows["c"]["score"] = 0.5
    del rows["a"]
    rewrite(folder, rows)
    assert record.main(asked(folder, "--url", server.url)) == 0
    assert {name: row["score"] for name, row in answers(folder).items()} == {"a": 1.0, "b": 0.0, "c": 0.5}


@pytest.mark.parametrize("score", ["good", 40, -1, True])
def test_a_score_that_is_none_is_refused(
    score: Any, server: Upstream, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(asked(folder, "--url", server.url)) == 0
    rows = answers(folder)
    rows["c"]["score"] = score
    rewrite(folder, rows)
    assert record.main(asked(folder, "--write")) == 1
    assert f"has the score {score!r}" in capsys.readouterr().err


def test_answers_of_another_model_are_not_mixed_with(
    server: Upstream, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(asked(folder, "--url", server.url)) == 0
    assert record.main(asked(folder, "--write", model="other")) == 1
    assert "holds answers of tiny, not of 'other'" in capsys.readouterr().err


def test_a_server_that_fails_now_and_then_is_asked_again(server: Upstream, folder: Path) -> None:
    assert record.main(asked(folder, "--url", server.url, model="flaky")) == 0
    assert len(answers(folder)) == 3


def test_a_server_that_counts_no_tokens_is_recorded_without(server: Upstream, folder: Path) -> None:
    assert record.main(asked(folder, "--url", server.url, model="silent")) == 0
    assert {row["out_tokens"] for row in answers(folder).values()} == {None}


def test_a_server_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(asked(folder, "--url", "http://127.0.0.1:9/v1")) == 1
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_a_thought_is_no_part_of_the_answer_and_a_cut_one_is_marked() -> None:
    message = {"content": "<think>perhaps 5</think>\nIt is 4."}
    said = record.read_reply({"choices": [{"message": message, "finish_reason": "length"}]})
    assert (said["answer"].strip(), said["cut"], said["out_tokens"]) == ("It is 4.", True, None)


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
    rows.append({**rows[0], "prompt_id": "8", "stem_key": rows[-1]["stem_key"]})  # repeats one of the evaluation
    pd.DataFrame(rows).to_parquet(tmp_path / "prompts.parquet")
    overlaps = pd.DataFrame({"dataset": ["mmlu_pro"], "prompt_id": ["9"]})
    overlaps.to_parquet(tmp_path / "overlap_with_routellm_eval.parquet")
    checks = [each["check"] for each in record.benchmark_questions(tmp_path)]
    assert checks == [{"letter": "B"}, {"yes_or_no": "yes"}, {"number": 2000.0}, {"number": 7.0}, {"any": ["Paris"]}]


@pytest.mark.parametrize("wanted", ["gold", "cannot be read"])
def test_tables_that_cannot_grade_are_refused(
    wanted: str, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if wanted == "gold":
        made_up(tmp_path)
    assert record.main(asked(folder, "--url", "http://127.0.0.1:9/v1", "--data", str(tmp_path))) == 1
    assert wanted in capsys.readouterr().err


def test_the_bundled_artifact_tells_demanding_prompts_from_everyday_ones_and_knows_the_bundled_model() -> None:
    report = everyday_report(together(with_recorded(linked())), Router.load(), seed=0)
    assert report["prompts"] > 100
    above = report["demanding_above_everyday"]
    assert above["artifact_difficulty"]["low"] > above["length"]["value"]
    known = report["models"][BUNDLED]["everyday"]
    assert known["brier"] < known["brier_as_economy"] / 2
    table = "\n".join(_everyday(report))
    assert "demanding above everyday" in table
    assert f"{BUNDLED} on everyday" in table
