"""Writes rows to a CSV or Parquet file that appears only when it is whole: temporary name, fsync, rename.

A write that fails (disk full, folder gone) removes what it began and raises StartupError; the file of before stays.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from gateway.billing.exports.columns import PRECISION, Column, Row, csv_writers
from gateway.errors import ConfigError, StartupError

Format = Literal["csv", "parquet"]
BATCH = 20_000
"""Rows that are in memory at a time, and a row group of Parquet."""

EXACTLY = Context(prec=100, traps=[Inexact, InvalidOperation])
"""Sums have as many digits as they need; a sum that would be rounded is an error."""


@dataclass(frozen=True, slots=True)
class Written:
    """A finished file: its rows, its size, what its bytes hash to, and the sums of its decimal columns (exact)."""

    rows: int
    size: int
    sha256: str
    totals: dict[str, Decimal]


def write_file(
    path: Path,
    columns: Sequence[Column],
    rows: Iterable[Row],
    form: Format,
    check: Callable[[dict[str, Decimal]], None],
) -> Written:
    """Write all rows to `path`, replacing what was there once the new file is complete.

    `check` sees the sums of the decimal columns before the file gets its name; when it raises, there is no file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    sums = _Sums(columns)
    try:
        with _explained(path):
            write = _write_parquet if form == "parquet" else _write_csv
            write(temporary, columns, sums.counted(rows))
            check(sums.totals())
            with temporary.open("rb") as finished:
                os.fsync(finished.fileno())
            digest, size = sha256_of(temporary), temporary.stat().st_size
            temporary.rename(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(sums.rows, size, digest, sums.totals())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """A small file in the same way: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _explained(path):
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


class _Sums:
    """Counts rows and adds decimal columns, exactly, while rows pass by."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.rows = 0
        self._places = [place for place, column in enumerate(columns) if column.kind == "decimal"]
        self._names = [columns[place].name for place in self._places]
        self._sums = [Decimal(0)] * len(self._places)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows."""
        for row in rows:
            self.rows += 1
            for number, place in enumerate(self._places):
                value = row[place]
                if value is not None:
                    assert isinstance(value, Decimal)
                    self._sums[number] = EXACTLY.add(self._sums[number], value)
            yield row

    def totals(self) -> dict[str, Decimal]:
        """The sums by column."""
        return dict(zip(self._names, self._sums, strict=True))


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    writers = csv_writers(columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\r\n")
        out.writerow([column.name for column in columns])
        for row in rows:
            cells: list[Any] = list(row)
            for place, write in writers:
                if cells[place] is not None:
                    cells[place] = write(cells[place])
            out.writerow(cells)


def _write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    arrow, parquet = _arrow()
    types = {
        "text": arrow.string(),
        "integer": arrow.int64(),
        "boolean": arrow.bool_(),
        "moment": arrow.timestamp("us", tz="UTC"),
    }
    fields = [
        (column.name, arrow.decimal128(PRECISION, column.scale) if column.kind == "decimal" else types[column.kind])
        for column in columns
    ]
    schema = arrow.schema(fields)
    with parquet.ParquetWriter(path, schema, compression="zstd") as out:
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH)):
            arrays = [
                arrow.array(cells, kind) for cells, (_, kind) in zip(zip(*batch, strict=True), fields, strict=True)
            ]
            out.write_batch(arrow.record_batch(arrays, schema=schema))


def require(form: Format) -> None:
    """Raises ConfigError when what a format needs is not installed; ask before anything is begun."""
    if form == "parquet":
        _arrow()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: run pip install 'penstock[export]'."
        ) from None
    return pyarrow, pyarrow.parquet


def _sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot write {str(path)!r}: {error.strerror or error}.") from error
