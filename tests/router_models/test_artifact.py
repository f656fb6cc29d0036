"""An artifact that is missing, damaged, of another format or of other features is refused by name; a good one round-trips."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_models import Router, sealed
from router_models.artifact import BUNDLED, HEADS, load, save
from router_models.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactVersionError,
    FeatureMismatchError,
)


def rewritten(path: Path, change: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]] | None = None) -> Path:
    """A copy of the bundled artifact with other header values and arrays."""
    with np.load(BUNDLED, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    header = json.loads(stored["header"].tobytes()) | change
    stored["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(path, **(stored | (arrays or {})))
    return path


def test_the_bundled_artifact_is_small_and_says_what_it_is() -> None:
    artifact = load()
    assert BUNDLED.stat().st_size < 2_000_000
    assert artifact.version == Router.load().version
    assert artifact.card["prompts"] > 5000
    assert len(artifact.domains) == len(artifact.weights.domain_shown)
    assert len(artifact.models) == len(artifact.weights.abilities)


def test_saving_a_loaded_artifact_gives_the_same_version_and_scores(tmp_path: Path) -> None:
    artifact = load()
    names = list(artifact.domains), list(artifact.models), "kernel", artifact.card, artifact.embedder, artifact.sample
    version = save(tmp_path / "again.npz", artifact.weights, *names)
    assert version == artifact.version
    prompt = "Name three rivers in Africa."
    assert Router.load(tmp_path / "again.npz").score_prompt(prompt) == Router.load().score_prompt(prompt)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.npz"):
        load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\x00" * 100])
def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ArtifactCorruptError, match="train it again"):
        load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_artifact_is_refused(tmp_path: Path, share: float) -> None:
    content = BUNDLED.read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactCorruptError):
        load(path)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6, 0.9])
def test_an_artifact_with_altered_bytes_is_refused(tmp_path: Path, place: float) -> None:
    content = bytearray(BUNDLED.read_bytes())
    start = int(len(content) * place)
    content[start : start + 16] = bytes(byte ^ 0xFF for byte in content[start : start + 16])
    path = tmp_path / "altered.npz"
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError):
        load(path)


def test_another_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ArtifactVersionError, match=r"format 99, this release reads 3"):
        load(rewritten(tmp_path / "a.npz", {"format": 99}))


def test_other_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureMismatchError, match="0123456789abcdef"):
        load(rewritten(tmp_path / "a.npz", {"features": "0123456789abcdef"}))


def test_other_tiers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactVersionError, match="gold"):
        load(rewritten(tmp_path / "a.npz", {"tiers": ["gold", "silver"]}))


def test_changed_numbers_fail_the_checksum(tmp_path: Path) -> None:
    with pytest.raises(ArtifactCorruptError, match="checksum"):
        load(rewritten(tmp_path / "a.npz", {}, {"bias": np.zeros(HEADS, dtype=np.float32)}))


def test_labels_that_nobody_knows_come_back_as_unknown(tmp_path: Path) -> None:
    artifact = load()
    assert np.isnan(artifact.sample.labels).any()
    assert not np.isnan(artifact.sample.labels[:, 0]).all()
    names = list(artifact.domains), list(artifact.models), "kernel", artifact.card, artifact.embedder
    other = save(tmp_path / "none.npz", artifact.weights, *names)
    assert len(load(tmp_path / "none.npz").sample) == 0
    assert other != artifact.version


@pytest.mark.parametrize(
    ("labels", "complaint"), [((3, 2), "sample_labels"), ((len(load().sample), 3), "between 0 and 1")]
)
def test_a_calibration_sample_without_sense_is_refused(tmp_path: Path, labels: tuple[int, int], complaint: str) -> None:
    header, stored = sealed.read(BUNDLED, "router artifact")
    sealed.write(tmp_path / "a.npz", header, stored | {"sample_labels": np.full(labels, 1.5, dtype=np.float32)})
    with pytest.raises(ArtifactCorruptError, match=complaint):
        load(tmp_path / "a.npz")


def test_a_pickle_inside_is_never_opened(tmp_path: Path) -> None:
    trap = np.array([object()], dtype=object)
    with pytest.raises(ArtifactCorruptError):
        load(rewritten(tmp_path / "a.npz", {}, {"bias": trap}))


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    with zipfile.ZipFile(path, "w") as file:
        part = io.BytesIO()
        np.save(part, np.arange(3))
        file.writestr("header.npy", part.getvalue())
    with pytest.raises(ArtifactCorruptError):
        load(path)


def test_a_file_of_another_kind_is_refused_without_the_advice_to_unpickle_it(tmp_path: Path) -> None:
    file = tmp_path / "text.npz"
    file.write_text("not an artifact")
    with pytest.raises(ArtifactCorruptError, match="penstock router train") as refused:
        load(file)
    assert "pickle" not in str(refused.value)
