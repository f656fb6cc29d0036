"""Public outcome files become the tables that training and evaluation read; a file that changed in one byte is refused."""

from __future__ import annotations

import io
import json
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from router_models.errors import TrainingDataError
from router_models.training.data import load_tables
from router_models.training.public_files import REPOSITORIES, Repository
from router_models.training.public_parsers import (
    GSM8K_COLUMNS,
    MODELS,
    PARSERS,
    Part,
    parse,
    same_number,
    stated_answer,
)
from router_models.training.record import benchmark_questions
from router_models.training.sources import fetch, git_id, main, overlaps, stem_key

LONG = "A baker sells twelve loaves on each of seven days and gives away every tenth one"


def csv(rows: list[dict[str, Any]]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False).encode()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def zipped(rows: list[Any]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("outputs.json", json.dumps(rows))
    return content.getvalue()


def asked(question: str, options: list[str], answer: str, said: str | None) -> dict[str, Any]:
    known = {"question_id": 70, "question": question, "options": options, "answer": answer, "pred": said}
    return known | {"category": "business", "src": "stemez-Business", "generated_text": "The answer is so."}


def solved(number: int, output: str, answer: str = "1,234") -> dict[str, Any]:
    return {"id": number, "problem": f"What is x in case {number}?", "answer": answer, "output": [output]}


def drifted(dataset: str, answer: str, truth: str, **more: str) -> dict[str, str]:
    known = {"model": "openaichat/gpt-4-0314", "dataset": dataset, "id": "7", "query": f"A question of {dataset}?"}
    return known | {"ref_answer": truth, "answer": answer, "answer_token": "12", "Clean_Code_Submit": "", **more}


FILES: dict[str, dict[str, bytes]] = {
    "routellm": {
        "routellm/evals/mmlu/responses/mmlu_anatomy.csv": csv(
            [
                {"prompt": "Which bone?\nA. one\nB. two\nAnswer:", MODELS[0]: True, MODELS[1]: True},
                {"prompt": f"{LONG}?\nA. no\nB. yes\nAnswer:", MODELS[0]: False, MODELS[1]: True},
            ]
        ),
        "routellm/evals/mmlu/contaminated_prompts.jsonl": lines(
            [{"eval_prompt": "Which bone?\nA. one\nB. two\nAnswer:"}]
        ),
        "routellm/evals/gsm8k/gsm8k_responses.csv": csv(
            [{"prompt": "NA", next(iter(GSM8K_COLUMNS)): False, MODELS[1]: True}]
        ),
        "routellm/evals/mt_bench/question.jsonl": lines(
            [{"question_id": 81, "category": "writing", "turns": ["Write it.", "Shorten it."]}]
        ),
        "routellm/evals/mt_bench/judgements.jsonl": lines(
            [
                {"question_id": 81, "model": "gpt-4-1106-preview", "turn": 2, "score": 9},
                {"question_id": 81, "model": "Mixtral-8x7B-Instruct-v0.1", "turn": 1, "score": 7},
                {"question_id": 81, "model": "another", "turn": 1, "score": 1},
                {"question_id": 81, "model": "gpt-4-1106-preview", "turn": 1, "score": -1},
            ]
        ),
        "routellm/evals/mt_bench/contaminated_prompts.jsonl": lines([{"eval_prompt": "Write it."}]),
    },
    "mmlu_pro": {
        "eval_results/model_outputs_gemma-7b_5shots.zip": zipped(
            [asked(f"{LONG}; how many are left?", ["one", "two"], "B", "B"), "a call that failed"]
        ),
        "eval_results/model_outputs_Yi-6B_5shots.zip": zipped(
            [asked(f"{LONG}; how many are left?", ["one", "two"], "B", None)]
        ),
    },
    "math_level5": {
        "result_dirs/math-l5/gemma-2-9b-it.json": json.dumps(
            [
                solved(0, 'So ```json\n{"reasoning": "a \\"b\\" c", "answer": "$1234"}\n```'),
                solved(1, "I do not know."),
                solved(2, '{"reasoning": "broken, "answer": 1235'),
                solved(3, '{"answer": "1/2"}', "0.5"),
            ]
        ).encode()
    },
    "drift": {
        "generation/PRIME_FULL_EVAL.csv": csv(
            [
                drifted("prime", "Not [No] but [Yes].", "yes"),
                drifted("composite", "[Yes]", "No"),
                drifted("counthappynumber", r"It is \\boxed{12}", r"\\boxed{12}"),
                drifted("leetcode_easy", "def f", "", Clean_Code_Submit="✔ Accepted"),
                drifted("opinionqa", "(B)", "(A)"),
            ]
        )
    },
    "llmrouter14": {
        "data/default_data/default_routing_train_data.jsonl": lines(
            [
                {
                    "task_name": "mbpp",
                    "query": "Add it.",
                    "model_name": "codegemma-7b",
                    "performance": 0.5,
                    "ground_truth": 3,
                },
                {"task_name": "mbpp", "query": "Add it.", "model_name": "gemma-2-9b-it", "performance": 1},
            ]
        )
    },
}


def repositories(root: Path) -> dict[str, Repository]:
    """The made-up files laid out as on the web, with their ids."""
    made = {}
    for source, files in FILES.items():
        known = REPOSITORIES[source]
        for path, content in files.items():
            place = root / known.name / known.commit / urllib.parse.quote(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        made[source] = Repository(
            known.name, known.commit, known.licence, {path: git_id(each) for path, each in files.items()}
        )
    return made


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("web")
    folder = tmp_path_factory.mktemp("out") / "tables"
    assert fetch(folder, FILES, root.as_uri(), repositories(root)) == 16
    return folder


def scores(folder: Path, dataset: str) -> dict[tuple[str, str], float]:
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    mine = outcomes[outcomes["dataset"] == dataset]
    return {(row.prompt_id, row.model): row.score for row in mine.itertuples()}


def test_files_of_every_source_become_loadable_tables(tables: Path) -> None:
    loaded = load_tables(tables)
    assert set(FILES) == set(PARSERS) == set(REPOSITORIES)
    datasets = {"mmlu_test", "gsm8k_test", "mt_bench", "mmlu_pro", "math_level5", "llmrouter14"}
    assert datasets < set(loaded.prompts["dataset"])
    assert loaded.prompts.loc[loaded.prompts["dataset"] == "gsm8k_test", "prompt"].tolist() == ["NA"]
    assert set(loaded.outcomes["tier"].dropna()) == {"economy", "standard", "premium"}


def test_answers_are_graded_as_each_source_means_them(tables: Path) -> None:
    assert scores(tables, "mmlu_test")[("anatomy-0001", MODELS[0])] == 0.0
    assert scores(tables, "mt_bench") == {("81-t2", MODELS[1]): 9.0, ("81-t1", MODELS[0]): 7.0}
    assert scores(tables, "mmlu_pro") == {("q00070", "gemma-7b"): 1.0, ("q00070", "Yi-6B"): 0.0}
    assert list(scores(tables, "math_level5").values()) == [1.0, 0.0, 0.0, 1.0]
    assert scores(tables, "drift_prime") == {("7", "gpt-4-0314"): 1.0}
    assert scores(tables, "drift_composite") == {("7", "gpt-4-0314"): 0.0}
    assert scores(tables, "drift_counthappynumber") == {("7", "gpt-4-0314"): 1.0}
    assert scores(tables, "drift_leetcode_easy") == {("7", "gpt-4-0314"): 1.0}
    assert all(pd.isna(each) for each in scores(tables, "drift_opinionqa").values())
    assert scores(tables, "llmrouter14")[("train-00000", "codegemma-7b")] == 0.5


def test_right_answers_come_along_where_the_source_has_them_so_that_a_model_can_be_recorded(tables: Path) -> None:
    gold = pd.read_parquet(tables / "prompts.parquet").set_index(["dataset", "prompt_id"])["gold"]
    assert (gold["mmlu_pro", "q00070"], gold["drift_prime", "7"], gold["llmrouter14", "train-00000"]) == (
        "B",
        "yes",
        "3",
    )
    assert gold["mmlu_test"].eq("").all()
    asked = {each["dataset"]: each["check"] for each in benchmark_questions(tables)}
    assert asked == {
        "drift_prime": {"yes_or_no": "yes"},
        "drift_composite": {"yes_or_no": "no"},
        "math_level5": {"number": 0.5},
    }


def test_prompts_that_repeat_thirteen_words_of_the_evaluation_are_listed(tables: Path) -> None:
    found = pd.read_parquet(tables / "overlap_with_routellm_eval.parquet")
    assert found.to_numpy().tolist() == [["mmlu_pro", "q00070"]]
    assert not load_tables(tables).prompts.set_index("prompt_id").loc["q00070", "trainable"]


def test_a_dozen_shared_words_are_no_overlap() -> None:
    prompts = pd.DataFrame(
        {
            "dataset": ["mmlu_test", "mmlu_pro"],
            "prompt_id": ["1", "2"],
            "prompt": [" ".join(LONG.split()[:12]), LONG],
        }
    )
    assert overlaps(prompts).empty


def test_the_protocols_exclusions_are_found_by_text(tables: Path) -> None:
    excluded = pd.read_csv(tables / "routellm_excluded.csv", dtype=str)
    assert excluded.to_numpy().tolist() == [["mmlu_test", "anatomy-0000"], ["mt_bench", "81-t1"]]


def test_a_file_that_changed_in_one_byte_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    made = repositories(tmp_path / "web")
    known = made["drift"]
    place = tmp_path / "web" / known.name / known.commit / "generation/PRIME_FULL_EVAL.csv"
    place.write_bytes(place.read_bytes() + b"\n")
    with pytest.raises(TrainingDataError, match=r"PRIME_FULL_EVAL\.csv.*not the known file"):
        fetch(tmp_path / "tables", FILES, (tmp_path / "web").as_uri(), made)
    assert not (tmp_path / "tables").exists()


def test_the_command_refuses_made_up_files_and_names_missing_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repositories(tmp_path / "web")
    for base, complaint in ((tmp_path / "web", "cannot be fetched"), (tmp_path, "cannot be fetched")):
        assert main(["--out", str(tmp_path / "tables"), "--only", "llmrouter14", "--base", base.as_uri()]) == 1
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize(
    ("source", "path", "content"),
    [
        ("mmlu_pro", "model_outputs_x_5shots.zip", b"not a zip"),
        ("mmlu_pro", "model_outputs_x_5shots.zip", zipped([{"question_id": 1}])),
        ("math_level5", "x.json", b"{"),
        ("drift", "x.csv", b"a,b\n1,2\n"),
        ("llmrouter14", "x_train.jsonl", b'{"query": "x"}'),
        ("routellm", "responses/mmlu_x.csv", b"question,answer\na,b\n"),
        ("routellm", "judgements.jsonl", b"[]"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(source: str, path: str, content: bytes) -> None:
    with pytest.raises(TrainingDataError, match=path.replace(".", r"\.")):
        parse(source, path, content, Part())


def test_every_listed_file_has_a_git_id_and_a_fixed_commit() -> None:
    for repository in REPOSITORIES.values():
        assert len(repository.commit) == 40
        assert repository.licence in ("Apache-2.0", "MIT")
        assert repository.files
        assert all(len(identity) == 40 for identity in repository.files.values())
    assert git_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_stated_answers_are_read_from_whole_and_broken_json() -> None:
    assert stated_answer('{"answer": "a"} then {"answer": "b"}') == "b"
    assert stated_answer("nothing") is None
    assert same_number("$1,000 miles", "#### 1000") == 1.0
    assert same_number("none", "1") == 0.0


def test_the_stem_key_ignores_case_and_punctuation() -> None:
    assert stem_key("What is 2+2?") == stem_key("  what IS 2 2")
    assert stem_key("What is 2+2?") != stem_key("What is 22?")
    assert len(stem_key("")) == 16
