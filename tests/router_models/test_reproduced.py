"""A training gives the same bytes however many threads there are, scores within the stated tolerance on other processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from router_models import Router
from router_models.artifact import Artifact, save
from router_models.training.__main__ import main
from router_models.training.reproduced import TOLERANCE, Distance, before, compared, distance
from tests.router_models.small_tables import made_up

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def trained(tables: Path, out: Path, **environment: str) -> Path:
    """The training command in a process of its own, with these settings of the numerical libraries and no others."""
    rest = {name: value for name, value in os.environ.items() if name not in (*THREADS, "OPENBLAS_CORETYPE")}
    command = [sys.executable, "-m", "router_models.training", "--data", str(tables), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, env=rest | environment)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("tables"), per_pattern=40)


@pytest.fixture(scope="module")
def artifact(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(folder, tmp_path_factory.mktemp("one") / "made.npz", OMP_NUM_THREADS="1")


def test_two_threads_give_the_bytes_of_one(folder: Path, artifact: Path, tmp_path: Path) -> None:
    assert trained(folder, tmp_path / "two.npz", OMP_NUM_THREADS="2").read_bytes() == artifact.read_bytes()


def test_another_kind_of_processor_gives_scores_within_the_tolerance(
    folder: Path, artifact: Path, tmp_path: Path
) -> None:
    # OpenBLAS takes the instructions of this processor; where there is no such, its own, and then the bytes are the same.
    other = trained(folder, tmp_path / "other.npz", OPENBLAS_CORETYPE="Sandybridge")
    assert distance(Router.load(artifact), Router.load(other)).within(TOLERANCE)


def test_the_command_says_that_the_bytes_are_the_same(
    folder: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.npz"
    out.write_bytes(artifact.read_bytes())
    assert main(["--data", str(folder), "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["same_as_before"] is True
    assert "largest_difference" not in report


def test_the_command_says_how_far_other_scores_are(
    folder: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = moved(artifact, tmp_path / "moved.npz", by=1.0)
    assert main(["--data", str(folder), "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["same_as_before"] is False
    assert report["within_tolerance"] is False
    assert report["largest_difference"]["rank"] == pytest.approx(1.0, abs=1e-4)
    assert out.read_bytes() == artifact.read_bytes()


def test_scores_that_moved_by_less_than_the_tolerance_are_within_it(artifact: Path, tmp_path: Path) -> None:
    report = compared(before(moved(artifact, tmp_path / "moved.npz", by=TOLERANCE.rank / 2)), artifact)
    assert report["same_as_before"] is False
    assert report["within_tolerance"] is True
    assert report["largest_difference"]["rank"] == pytest.approx(TOLERANCE.rank / 2, abs=1e-4)


def test_with_nothing_to_compare_nothing_is_said_of_distances(artifact: Path, tmp_path: Path) -> None:
    assert compared(before(tmp_path / "none.npz"), artifact) == {"same_as_before": False}
    (tmp_path / "old.npz").write_bytes(b"of another release")
    assert compared(before(tmp_path / "old.npz"), artifact) == {"same_as_before": False}


def test_every_part_of_a_distance_has_to_be_within() -> None:
    assert TOLERANCE.within(TOLERANCE)
    for part in ("quality", "rank", "tokens"):
        assert not replace(TOLERANCE, **{part: 1.0}).within(TOLERANCE)
        assert not replace(TOLERANCE, **{part: float("nan")}).within(TOLERANCE)
    assert Distance(0.0, 0.0, 0.0).within(TOLERANCE)


def moved(artifact: Path, path: Path, by: float) -> Path:
    """A copy of an artifact whose ranks are all lower by so much."""
    made: Artifact = Router.load(artifact).artifact
    bias = made.weights.bias.copy()
    bias[1] += by
    weights = replace(made.weights, bias=bias)
    save(path, weights, list(made.domains), list(made.models), "kernel", made.card, made.embedder, made.sample)
    return path
