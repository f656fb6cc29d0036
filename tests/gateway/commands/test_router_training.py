"""`penstock router train|calibrate|evaluate`: artifacts from tables, labels in a file and the log; complaints in a sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from router_models import Router
from router_models.kept import fingerprint, pack
from tests.gateway.commands.processes import complaint, penstock
from tests.routed_traffic import Request, written
from tests.router_models.small_tables import made_up

ROUTER = Router.load()
QUESTIONS = [f"What is the sum of {n} and {n + 7}, and is it odd?" for n in range(120)]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    lines = [
        {"prompt": question, "tier": tier, "score": score, "output_tokens": 20, "model": "own-model"}
        for question in QUESTIONS
        for tier, score in (("economy", 0.0), ("premium", 1.0))
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_labels_in_a_file_make_an_artifact_that_says_what_changed(labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.npz"
    done = penstock("router", "calibrate", "--labels", str(labels), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    served = Router.load(out)
    assert document["artifact"] == served.version
    assert document["from"] == ROUTER.version
    assert document["prompts"] == 120
    assert (
        served.score_prompt(QUESTIONS[0]).quality["economy"].p < ROUTER.score_prompt(QUESTIONS[0]).quality["economy"].p
    )
    told = penstock("router", "calibrate", "--labels", str(labels), "--out", str(out))
    assert served.version in told.stdout
    assert "log loss" in told.stdout


def test_few_labels_are_refused_and_nothing_is_written(labels: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(labels.read_text().splitlines()[:40]))
    done = penstock("router", "calibrate", "--labels", str(few), "--out", str(tmp_path / "own.npz"))
    assert done.returncode == 1
    assert "20 labelled prompts are too few" in complaint(done)
    assert "at least 50" in complaint(done)
    assert not (tmp_path / "own.npz").exists()


def test_tables_and_labels_together_train_an_artifact(labels: Path, tmp_path: Path) -> None:
    tables = made_up(tmp_path / "tables")
    question = "Who of those that signed the second letter of the third council had also signed the first one?"
    prompts = pd.read_parquet(tables / "prompts.parquet")
    prompts.loc[len(prompts)] = ["mmlu_test", "1", question, "history", "0" * 16]
    prompts.to_parquet(tables / "prompts.parquet")
    repeat = json.dumps({"prompt": f"Tell me: {question}", "tier": "economy", "score": 1.0, "output_tokens": 9})
    both = tmp_path / "both.jsonl"
    both.write_text(f"{labels.read_text()}\n{repeat}\n")
    out = tmp_path / "made.npz"
    arguments = ("--data", str(tables), "--labels", str(both), "--out", str(out))
    done = penstock("router", "train", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    made = Router.load(out)
    assert document["artifact"] == made.version
    assert document["own_labels"] == 241
    assert document["own_prompts_left_out"] == 1
    assert "own/own" in made.artifact.domains
    assert "own-model" in document["card"]["ability"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "--out", "x.npz"), 2, "give --data DIR, --labels FILE or --from-log"),
        (("train", "--data", "no-such-folder", "--out", "x.npz"), 1, "prompts.parquet"),
        (("calibrate", "--out", "x.npz"), 2, "give --labels FILE or --from-log"),
        (("calibrate", "--labels", "no-such-file", "--out", "x.npz"), 1, "no-such-file"),
        (("calibrate", "--labels", "README.md", "--artifact", "no-such.npz", "--out", "x.npz"), 1, "no-such.npz"),
        (("calibrate", "--labels", "README.md", "--out", "x.npz"), 1, "line 1"),
        (("evaluate", "--data", "no-such-folder"), 1, "prompts.parquet"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = penstock("router", *arguments)
    assert done.returncode == code
    assert words in complaint(done)
    assert not Path("x.npz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--data", "no-such-folder"),
        ("calibrate", "--labels", "no-such-file"),
        ("evaluate", "--data", "no-such-folder"),
    ],
)
def test_a_folder_to_write_to_that_is_not_there_is_said_before_the_work(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = penstock("router", *arguments, "--out", str(tmp_path / "no" / "own.npz"))
    assert done.returncode == 1
    assert f"there is no folder {str(tmp_path / 'no')!r}" in complaint(done)
    assert not (tmp_path / "no").exists()


def test_the_share_of_a_challenger_that_is_not_named_is_refused() -> None:
    done = penstock("router", "assign", "default", "--champion", "bundled", "--share", "0.2")
    assert done.returncode == 2
    assert "--challenger VERSION" in complaint(done)


def test_labels_of_one_policy_that_are_too_few_to_train_on_are_told_all_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    lines = [
        {"prompt": f"What is {n} and {n + 7}?", "tier": tier, "score": n % 2, "output_tokens": 20}
        for n in range(180)
        for tier in ("standard", "premium")
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    done = penstock("router", "train", "--labels", str(file), "--out", str(tmp_path / "t.npz"))
    assert done.returncode == 1
    told = complaint(done)
    assert "1 domains ('own/own') have 20 prompts or more, 2 are needed" in told
    assert "0 prompts have a scored economy answer of known length, 50 are needed" in told
    assert "penstock router calibrate" in told
    assert "Warning" not in done.stderr
    assert not (tmp_path / "t.npz").exists()


def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text("raise ImportError('pandas is not here')")
    done = penstock(
        "router", "train", "--data", ".", "--out", str(tmp_path / "x.npz"), environment={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "pip install 'penstock[train]'" in complaint(done)


def test_labels_of_the_log_calibrate_an_artifact_by_kept_features(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'penstock.db'}"
    database = connect(url)
    migrate(database)
    now = time.time()
    features = [ROUTER.score_prompt(question).features for question in QUESTIONS]
    written(
        database,
        [
            Request(ROUTER.version, now - 3600 + place, score=0.0, fingerprint=fingerprint(), features=pack(each))
            for place, each in enumerate(features)
        ],
    )
    database.close()
    environment = {"DATABASE_URL": url, "PENSTOCK_DATA_DIR": str(tmp_path)}
    out = tmp_path / "own.npz"
    done = penstock("router", "calibrate", "--from-log", "--out", str(out), "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["prompts"] == 120
    assert document["tiers"]["economy"]["labels"] == 120
    assert Router.load(out).score_prompt(QUESTIONS[0]).quality["economy"].p < 0.3
    other = penstock(
        "router", "calibrate", "--from-log", "--policy", "other", "--out", str(out), environment=environment
    )
    assert other.returncode == 1
    assert "no labels of policy 'other'" in complaint(other)
    # Without texts nothing can be trained on.
    trained = penstock("router", "train", "--from-log", "--out", str(tmp_path / "t.npz"), environment=environment)
    assert trained.returncode == 1
    assert "too few" in complaint(trained)
