"""An artifact is refused by code that computes any feature in another way than the code it was trained with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import router_models
from router_models import Router
from router_models.embedder import Embedder, Floats, load
from router_models.errors import FeatureMismatchError
from router_models.features import _MEANING_DECIMALS, _PROBES, _SHAPE_DECIMALS, extract

PACKAGE = Path(router_models.__file__).parent
LOAD = "from router_models import Router; print(Router.load().version)"
# What another release might change: file, what it says today, what it would say. None of them changes FEATURES_VERSION.
CHANGES = {
    "a mark loses a word": ("features.py", '"prove", "derive", "proof"', '"prove", "proof"'),
    "a mark gains a word": ("features.py", '{"following"}', '{"following", "next"}'),
    "a word marks something else": ("features.py", '"if"}', '"unless"}'),
    "less of the head is read": ("request.py", "HEAD_CHARACTERS = 2_000", "HEAD_CHARACTERS = 1_900"),
    "less of the tail is read": ("request.py", "TAIL_CHARACTERS = 2_000", "TAIL_CHARACTERS = 100"),
    "long text is cut later": ("request.py", "READ_CHARACTERS = 6_000", "READ_CHARACTERS = 8_000"),
    "fewer samples are read": ("request.py", "SAMPLES = 4", "SAMPLES = 2"),
    "the tail is not read": ("request.py", "text[-TAIL_CHARACTERS:]]", "text[:TAIL_CHARACTERS]]"),
    "less of a conversation is read": ("request.py", "ENOUGH_CHARACTERS = 200", "ENOUGH_CHARACTERS = 50"),
    "meaning is reversed": ("embedder.py", "return self.of_tokens(tokens)", "return self.of_tokens(tokens)[::-1]"),
    "rare words count no more": ("embedder.py", "scale * self.rarity", "scale"),
    "words are cut elsewhere": ("wordpiece.py", "start + self._longest)", "start + 4)"),
    "other scripts are not seen": ("script.py", "(0x3031, 0xA6FF)", "(0xA000, 0xA6FF)"),
}  # fmt: skip


def release(folder: Path, file: str, old: str, new: str) -> dict[str, str]:
    """Environment of a process that finds a copy of this package with one change."""
    copy = folder / "router_models"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("artifacts", "training", "evaluation", "__pycache__"))
    (copy / "artifacts").symlink_to(PACKAGE / "artifacts")
    text = (copy / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}


def loaded(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOAD]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


@pytest.mark.parametrize("change", CHANGES)
def test_code_that_reads_requests_otherwise_refuses_the_artifact(change: str, tmp_path: Path) -> None:
    done = loaded(release(tmp_path, *CHANGES[change]), tmp_path)
    assert done.returncode == 1
    assert "FeatureMismatchError" in done.stderr


def test_code_that_differs_in_words_alone_loads_the_artifact(tmp_path: Path) -> None:
    done = loaded(release(tmp_path, "features.py", "Turns text into numbers", "Makes text numbers"), tmp_path)
    assert done.stdout.strip() == Router.load().version


class Reversed(Embedder):
    """The bundled table with its axes the other way round, under the same version."""

    def __init__(self, table: Embedder) -> None:
        self.__dict__.update(vars(table))

    def of_tokens(self, tokens: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Floats:
        return super().of_tokens(tokens)[::-1].copy()


def test_an_embedder_that_gives_other_vectors_under_the_same_name_is_refused() -> None:
    with pytest.raises(FeatureMismatchError):
        Router.load(None, Reversed(load()))


def test_no_compared_number_lies_where_another_processor_could_round_it_otherwise() -> None:
    table = load()
    for probe in _PROBES:
        found = extract(probe, table)
        for values, decimals in ((found.shape, _SHAPE_DECIMALS), (found.meaning, _MEANING_DECIMALS)):
            steps = values.astype(np.float64) * 10**decimals
            from_edge = np.abs(steps - np.floor(steps) - 0.5) / 10**decimals
            # Two units in the last place of the largest number here.
            assert from_edge.min() > 2e-6
