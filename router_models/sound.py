"""Whether an artifact makes sense beyond its checksum: names, card and numbers that nothing else would stop. Raises by name.

A checksum only says that a file is what somebody wrote. These checks say that it can be named in an address, shown as JSON and
scored with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models import sealed

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
"""What can be a part of a path and of a header, and is no way out of a folder."""
LONGEST_NAME = 200
DEEPEST = 20
LARGEST_INTEGER = 2**53
# Bounds of a trained router's numbers. Points are squared in float32, and exp must bear what that rounds.
LARGEST, LARGEST_OF_POINTS = 1e6, 100.0
OF_POINTS = ("pull", "landmarks")
POSITIVE = ("scale", "token_factor")

Arrays = Mapping[str, NDArray[Any]]


def version_of(path: Path, kind: str, header: Mapping[str, Any]) -> str:
    """The version, which names an artifact everywhere. Raises ArtifactCorruptError."""
    version = header.get("version")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise sealed.corrupt(path, kind, f"its version {version!r:.80} is not letters, digits and any of . _ + -")
    return version


def names_of(path: Path, kind: str, header: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of names. Raises ArtifactCorruptError."""
    names = header.get(key)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in names
    ):
        raise sealed.corrupt(path, kind, f"its {key} {names!r:.80} are not a list of names")
    if not _is_plain(names, DEEPEST) or len(set(names)) < len(names):
        raise sealed.corrupt(path, kind, f"its {key} have one name twice, or one that is no text")
    return tuple(names)


def card_of(path: Path, kind: str, header: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of the training, which is shown as JSON. Raises ArtifactCorruptError."""
    card = header.get("card")
    if not isinstance(card, dict) or not _is_plain(card, DEEPEST):
        raise sealed.corrupt(path, kind, "its card is not an object of texts, finite numbers, lists and objects")
    return card


def check_numbers(path: Path, kind: str, arrays: Arrays, domains: int) -> None:
    """Refuse weights, finite ones by now, that no training gives. Raises ArtifactCorruptError that names the array."""
    for name, array in arrays.items():
        most = LARGEST_OF_POINTS if name in OF_POINTS else LARGEST
        if array.size and float(np.abs(array.astype(np.float64)).max()) > most:
            raise sealed.corrupt(path, kind, f"{name!r} has numbers beyond {most:g}")
    for name in POSITIVE:
        if not np.all(arrays[name] > 0):
            raise sealed.corrupt(path, kind, f"{name!r} has numbers that are not above 0")
    spread, home = arrays["prior_spread"], arrays["home"]
    for holds, why in (
        (home.size > 0, "it has no landmarks"),
        (np.all((home >= 0) & (home < domains)), "'home' names domains that it does not have"),
        (np.all(np.diff(arrays["knots"]) >= 0), "'knots' do not ascend"),
        (np.all(arrays["half_width"] >= 0), "'half_width' has numbers below 0"),
        (arrays["shown"][1] > 0, "'shown' has a scale that is not above 0"),
        (np.allclose(spread, spread.T) and np.linalg.eigvalsh(spread)[0] > 0, "'prior_spread' is no covariance"),
    ):
        if not holds:
            raise sealed.corrupt(path, kind, why)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether every program and database can read this as JSON."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= LARGEST_INTEGER
    if isinstance(value, float):
        return isfinite(value)
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(_is_plain(key, 0) and _is_plain(each, depth - 1) for key, each in value.items())
    return isinstance(value, list) and all(_is_plain(each, depth - 1) for each in value)
