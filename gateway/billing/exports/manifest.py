"""manifest.json beside exported files: what they were made from, their sums and checksums, so that a second run can skip them.

A manifest that cannot be read counts as none: the files are written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from gateway import __version__
from gateway.billing.exports.columns import decimal_text
from gateway.billing.exports.sinks import Written, sha256_of, write_text

NAME = "manifest.json"
VERSION = 1


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


def write_manifest(folder: Path, inputs: dict[str, Any], entries: Sequence[FileEntry], *, complete: bool) -> None:
    """Say what is in the folder; `complete` once nothing is missing."""
    document = {
        "manifest_version": VERSION,
        "generated_by": f"penstock {__version__}",
        "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": complete,
        "inputs": inputs,
        "files": [asdict(entry) for entry in entries],
    }
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    write_text(folder / NAME, text + "\n")


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256
    except OSError:
        return False
