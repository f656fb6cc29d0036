"""Reads and writes sealed npz files: arrays and a JSON header under one SHA-256, never pickle; a doubtful file is refused.

All or nothing: whatever is wrong with a file, no part of it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.errors import ArtifactCorruptError, ArtifactNotFoundError

Arrays = dict[str, NDArray[Any]]


def write(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """A compressed npz with fixed dates, so the same contents give the same bytes. `header` gets the checksum."""
    sealed = {**header, "checksum": checksum(arrays)}
    text = np.frombuffer(json.dumps(sealed, sort_keys=True).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key, array in {"header": text, **arrays}.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{key}.npy"), part.getvalue(), compress_type=zipfile.ZIP_DEFLATED)


def read(path: Path, kind: str, content: bytes | None = None) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays, checksum not yet compared (see `verify`). `kind` names the file in messages.

    With `content` nothing is read: the path is only a name for these bytes.
    """
    try:
        content = path.read_bytes() if content is None else content
    except FileNotFoundError:
        raise ArtifactNotFoundError(f"there is no {kind} at {str(path)!r}") from None
    except OSError as error:
        raise ArtifactCorruptError(f"{kind} {str(path)!r} cannot be read: {error}") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            parts = {key: file[key] for key in file.files}
        stored = {key: part for key, part in parts.items() if isinstance(part, np.ndarray)}
        header = json.loads(stored.pop("header").tobytes())
    # Whatever a damaged zip or header raises (there are many kinds) means the same to the caller.
    except Exception as error:
        raise corrupt(path, kind, f"{type(error).__name__}: {error}") from error
    if not isinstance(header, dict):
        raise corrupt(path, kind, "its header is not an object")
    return header, stored


def verify(path: Path, kind: str, header: dict[str, Any], arrays: Arrays) -> None:
    """Raise ArtifactCorruptError unless the header's checksum is that of the arrays."""
    if header.get("checksum") != checksum(arrays):
        raise corrupt(path, kind, "its checksum does not match its contents")


def taken(path: Path, kind: str, key: str, arrays: Arrays, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """One array of the wanted shape, as `dtype`, all numbers finite. Raises ArtifactCorruptError."""
    array = arrays.get(key)
    if array is None or array.shape != shape:
        raise corrupt(path, kind, f"{key!r} has shape {None if array is None else array.shape!r}, expected {shape!r}")
    if array.dtype.kind not in "fiu":
        raise corrupt(path, kind, f"{key!r} holds {array.dtype.str!r:.80}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, which is refused
        array = np.ascontiguousarray(array, dtype=dtype)
    if not np.all(np.isfinite(array)):
        raise corrupt(path, kind, f"{key!r} contains numbers that are not finite")
    return array


def checksum(arrays: Arrays) -> str:
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def corrupt(path: Path, kind: str, why: str) -> ArtifactCorruptError:
    """The error for a damaged file."""
    return ArtifactCorruptError(
        f"{kind} {str(path)!r} is damaged ({why}); restore it, or train it again with python -m router_models.training"
    )
