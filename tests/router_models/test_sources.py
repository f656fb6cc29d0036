"""Public outcome files become the tables that training and evaluation read; a file that changed is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from router_models.training.data import load_tables
from router_models.training.sources import GSM8K_COLUMNS, MMLU_SUBJECTS, MODELS, main, stem_key


def checkout(root: Path) -> Path:
    """A made-up checkout with two questions per file."""
    mmlu = root / "routellm/evals/mmlu/responses"
    gsm8k = root / "routellm/evals/gsm8k"
    mmlu.mkdir(parents=True)
    gsm8k.mkdir(parents=True)
    for subject in MMLU_SUBJECTS:
        questions = [f"Which {subject}?\nA. one\nB. two\nAnswer:", f"Why {subject}?\nA. no\nB. yes\nAnswer:"]
        pd.DataFrame({"prompt": questions, MODELS[0]: [True, False], MODELS[1]: [True, True]}).to_csv(
            mmlu / f"mmlu_{subject}.csv", index=False
        )
    spelled = {ours: theirs for theirs, ours in GSM8K_COLUMNS.items()}
    gsm = pd.DataFrame({"prompt": ["How many?", "NA"], spelled[MODELS[0]]: [False, True], MODELS[1]: [True, True]})
    gsm.to_csv(gsm8k / "gsm8k_responses.csv", index=False)
    return root


def test_fetched_files_become_loadable_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = checkout(tmp_path / "checkout").as_uri()
    assert main(["--out", str(tmp_path / "tables"), "--routellm", base]) == 0
    assert f"wrote {2 * len(MMLU_SUBJECTS) + 2} prompts" in capsys.readouterr().out
    tables = load_tables(tmp_path / "tables")
    assert set(tables.prompts["dataset"]) == {"gsm8k_test", "mmlu_test"}
    assert tables.prompts["prompt"].tolist()[:2] == ["How many?", "NA"]
    assert not tables.prompts["trainable"].any()
    by_model = tables.outcomes.groupby("model")["score"].mean().to_dict()
    assert by_model == {"Mixtral-8x7B-Instruct-v0.1": 0.5, "gpt-4-1106-preview": 1.0}


def test_a_file_that_changed_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(tmp_path / "checkout")
    (root / "routellm/evals/mmlu/responses/mmlu_anatomy.csv").write_text("question,answer\na,b\n")
    assert main(["--out", str(tmp_path / "tables"), "--routellm", root.as_uri()]) == 1
    assert "anatomy" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "tables"), "--routellm", tmp_path.as_uri()]) == 1
    assert "gsm8k_responses.csv" in capsys.readouterr().err


def test_the_stem_key_ignores_case_and_punctuation() -> None:
    assert stem_key("What is 2+2?") == stem_key("  what IS 2 2")
    assert stem_key("What is 2+2?") != stem_key("What is 22?")
    assert len(stem_key("")) == 16
