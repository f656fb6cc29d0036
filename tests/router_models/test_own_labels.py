"""Labels of one model's answers: read from a file of several models, one per prompt, refused when they are too few or odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router_models import Router
from router_models.errors import TrainingDataError
from router_models.own_labels import LEAST_PROMPTS, read_own_labels

ROUTER = Router.load()


def file_of(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def sums(count: int, score: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {n} + {n + 3}?", "score": score, **more} for n in range(count)]


def test_a_prompt_counts_once_with_the_mean_of_its_labels_and_those_of_other_models_do_not_count(
    tmp_path: Path,
) -> None:
    lines = [*sums(25), *sums(25, 0.0, model="mine", tier="premium"), *sums(25, 0.0, model="other", tier="economy")]
    labels = read_own_labels(file_of(tmp_path, lines), "mine", "standard")
    assert len(labels.prompts) == 25
    assert set(labels.labels) == {0.5}


def test_ends_of_lines_inside_a_prompt_are_part_of_it(tmp_path: Path) -> None:
    lines = [{**each, "prompt": f"{each['prompt']}\u2028and\u0085so\u2029on"} for each in sums(25)]
    path = tmp_path / "labels.jsonl"
    path.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\r\n" for line in lines), encoding="utf-8", newline=""
    )
    assert len(read_own_labels(path, "mine", "standard").prompts) == 25


def test_messages_are_read_as_the_router_reads_them(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": each["prompt"]}], "score": each["score"]} for each in sums(30)]
    labels = read_own_labels(file_of(tmp_path, lines), "mine", "economy")
    assert labels.prompts[3] == "What is 3 + 6?"


def test_the_ability_says_by_how_many_labels_and_follows_them(tmp_path: Path) -> None:
    score = ROUTER.score_prompt("What is 70 + 73?")
    good, bad = (
        read_own_labels(file_of(tmp_path, sums(40, label)), "mine", "economy").ability(ROUTER, "mine")
        for label in (1.0, 0.0)
    )
    assert good.basis == bad.basis == "40 labels of its own"
    assert bad.quality(score).high < good.quality(score).low


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], f"labels 0 different prompts for 'mine'; {LEAST_PROMPTS} are the least"),
        (sums(LEAST_PROMPTS - 1), f"labels {LEAST_PROMPTS - 1} different prompts for 'mine'; {LEAST_PROMPTS} are"),
        (sums(1) * 40, "labels 1 different prompts"),
        (sums(5001), "labels 5001 different prompts for 'mine'; 5000 are the most"),
        (sums(40, model="other"), "none of the 40 labels in"),
        ([*sums(30), {"prompt": "x", "score": 1.5}], "line 31 of .*: a score must lie between 0 and 1, got 1.5"),
        ([*sums(30), {"prompt": "x", "score": float("nan")}], "line 31 of .*: a score must lie between 0 and 1"),
        ([*sums(30), {"prompt": "x"}], "line 31 of .*: 'score' must be a number, got None"),
        ([{"score": 1}], 'line 1 of .*: give either "prompt" or "messages"'),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_what_is_needed(
    tmp_path: Path, lines: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(TrainingDataError, match=words):
        read_own_labels(file_of(tmp_path, lines), "mine", "economy")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"'.*none\.jsonl' cannot be read"):
        read_own_labels(tmp_path / "none.jsonl", "mine", "economy")
