"""Model directories this engine writes: quantised or pruned weights, and beside them `penstock.json`, which says what they are.

`penstock.json` holds the format's version, the number format of the matrices, the model's shape, and size and SHA-256 of
every other file that matters. Whatever disagrees with it raises CorruptModelFile before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from local_engine.config import ModelConfig, Quantization
from local_engine.errors import CorruptModelFile
from local_engine.quantization.int4 import GROUP

MANIFEST = "penstock.json"
WEIGHTS = "model.safetensors"
VERSION = 1
_CHECKED = (WEIGHTS, "config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a directory holds: `quantize` is "none" for floats under canonical names, else the decoder's own tensors."""

    quantize: Quantization
    config: ModelConfig


def write_manifest(directory: Path, quantize: Quantization, config: ModelConfig) -> None:
    """Describe the files that are in `directory` already."""
    files = {
        name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)} for name in _CHECKED
    }
    content = {"version": VERSION, "quantize": quantize, "group": GROUP, "model": asdict(config), "files": files}
    (directory / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> SavedModel | None:
    """None for a directory that others made. Raises CorruptModelFile."""
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, quantize, group = content["version"], content["quantize"], content["group"]
        if version != VERSION:
            raise _corrupt(path, f"its format is version {version!r}, this engine reads {VERSION}")
        if quantize not in get_args(Quantization) or group != GROUP:
            raise _corrupt(
                path, f"it says {quantize!r} in groups of {group!r}, known are {get_args(Quantization)!r}, {GROUP}"
            )
        config = ModelConfig(**{name: _tuples(value) for name, value in content["model"].items()})
        for name in _CHECKED:
            _check(directory / name, content["files"][name])
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _corrupt(path, f"{type(error).__name__} {error}") from error
    return SavedModel(quantize, config)


def _check(path: Path, expected: dict[str, Any]) -> None:
    if not path.is_file():
        raise CorruptModelFile(f"{str(path)!r} is missing: make the directory again")
    if path.stat().st_size != expected["bytes"]:
        raise CorruptModelFile(
            f"{str(path)!r} has {path.stat().st_size} bytes, {expected['bytes']!r} were written: make the directory again"
        )
    if _sha256(path) != expected["sha256"]:
        raise CorruptModelFile(f"{str(path)!r} is not what was written (its SHA-256 differs): make the directory again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tuples(value: Any) -> Any:
    """JSON has lists where a frozen configuration has tuples."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _corrupt(path: Path, why: str) -> CorruptModelFile:
    return CorruptModelFile(f"{str(path)!r} cannot be used: {why}; make the directory again")
