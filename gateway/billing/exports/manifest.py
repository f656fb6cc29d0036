"""manifest.json beside exported files: what they were made from, their sums and checksums, so that a second run can skip them.

A manifest that cannot be read counts as none: the files are written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway import __version__
from gateway.billing.exports.columns import decimal_text
from gateway.billing.exports.sinks import Written, sha256_of, write_text

NAME = "manifest.json"
VERSION = 2


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One finished file. `totals` are the sums of its decimal columns, as exact decimal text."""

    name: str
    dataset: str
    rows: int
    bytes: int
    sha256: str
    totals: dict[str, str]


def entry_of(name: str, dataset: str, written: Written) -> FileEntry:
    """The entry of a file that has just been written."""
    totals = {column: decimal_text(total) for column, total in written.totals.items()}
    return FileEntry(name, dataset, written.rows, written.size, written.sha256, totals)


def finished(folder: Path, inputs: dict[str, Any]) -> dict[str, FileEntry]:
    """Files of an earlier run that were made from the same inputs and still have their checksum, by name."""
    try:
        document = orjson.loads((folder / NAME).read_bytes())
        if document["manifest_version"] != VERSION or document["inputs"] != inputs:
            return {}
        entries = [FileEntry(**entry) for entry in document["files"]]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return {entry.name: entry for entry in entries if _is_whole(folder / entry.name, entry)}


def is_complete(folder: Path) -> bool:
    """Whether the manifest says that nothing is missing."""
    return bool(orjson.loads((folder / NAME).read_bytes())["complete"])


def write_manifest(folder: Path, inputs: dict[str, Any], entries: Sequence[FileEntry], *, complete: bool) -> None:
    """Say what is in the folder; `complete` once nothing is missing. It holds no clock, so equal exports have equal bytes."""
    document = {
        "manifest_version": VERSION,
        "generated_by": f"penstock {__version__}",
        "complete": complete,
        "inputs": inputs,
        "files": [asdict(entry) for entry in entries],
    }
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    write_text(folder / NAME, text + "\n")


def check_folder(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The inputs of a folder's manifest, and what is wrong with its files, in words. Raises ValueError without a manifest."""
    try:
        document = orjson.loads((folder / NAME).read_bytes())
        inputs, complete = document["inputs"], document["complete"]
        entries = [FileEntry(**entry) for entry in document["files"]]
    except OSError as error:
        raise ValueError(f"{str(folder / NAME)!r} cannot be read: {error.strerror}") from None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{str(folder / NAME)!r} is not the manifest of an export") from None
    problems = [] if complete else ["the export is not complete: it was interrupted or is still being written"]
    for entry in entries:
        problems += _problems(folder / entry.name, entry)
    known = {entry.name for entry in entries} | {NAME}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known and path.name[:1] != ".")
    problems += [f"{name} is in the folder and not in the manifest" for name in strange]
    return inputs, problems


def _problems(path: Path, entry: FileEntry) -> list[str]:
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return [f"{entry.name} has {size} bytes, the manifest says {entry.bytes}"]
        digest = sha256_of(path)
    except OSError as error:
        return [f"{entry.name} cannot be read: {error.strerror}"]
    return (
        [] if digest == entry.sha256 else [f"{entry.name} has the SHA-256 {digest}, the manifest says {entry.sha256}"]
    )


def _is_whole(path: Path, entry: FileEntry) -> bool:
    return not _problems(path, entry)
