"""Writes one export: its files, all from one consistent view of the database, and their manifest.

Sums are compared with the ledger before a file gets its name: books that disagree give StartupError and no file.
Files of an earlier run with the same inputs are verified and skipped. Unavailable when the database does not answer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gateway.billing.exports import manifest, queries
from gateway.billing.exports.files import SOMETIMES, File, files_of
from gateway.billing.exports.order import Order, books_of, fingerprint, inputs_of
from gateway.billing.exports.sinks import Format, require, write_file
from gateway.billing.retention.queries import removed_months_for
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import ConfigError, StartupError


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export. `skipped` are the names of files that an earlier run had written."""

    folder: Path
    files: tuple[manifest.FileEntry, ...]
    skipped: frozenset[str]
    inputs: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the folder, what the files were made from, and each file with its checksum and sums."""
        return {
            "folder": str(self.folder),
            "inputs": self.inputs,
            "files": [
                {
                    "name": entry.name,
                    "dataset": entry.dataset,
                    "state": "skipped" if entry.name in self.skipped else "written",
                    "rows": entry.rows,
                    "bytes": entry.bytes,
                    "sha256": entry.sha256,
                    "totals": entry.totals,
                }
                for entry in self.files
            ],
        }


def export(database: Database, order: Order, out: Path, *, force: bool = False, any_tenant: bool = False) -> Exported:
    """Write what is missing of an order into its folder under `out`. `force` writes everything again, `any_tenant` allows
    one that never had usage.

    Raises ConfigError for a tenant that never had usage and for a missing library; StartupError when the folder cannot be
    written, is being written by another process, or the books do not agree.
    """
    require(order.form)
    if order.what == "journal" and order.tenant is not None:
        raise ConfigError("a journal is of all tenants, because the entries of one alone would not balance.")
    folder = out / order.folder
    with snapshot(database) as connection:
        _check(connection, order, any_tenant)
        with _taken(folder):
            books = books_of(connection, order)
            counted = fingerprint(connection, order, books)
            inputs = inputs_of(connection, order, books, counted)
            files = files_of(connection, order, books, counted)
            standing = manifest.finished(folder, inputs)
            done = {} if force else dict(standing)
            skipped = frozenset(done)
            if len(done) < len(files) and (folder / manifest.NAME).exists():
                # Before a file is replaced, no manifest may claim what will be wrong in a moment.
                manifest.write_manifest(folder, inputs, _in_order(files, standing), complete=False)
            if (former := f"{SOMETIMES}.{order.form}") not in {file.name for file in files}:
                (folder / former).unlink(missing_ok=True)
            for file in files:
                if file.name not in done:
                    done[file.name] = _write(folder, file, order.form)
                    manifest.write_manifest(folder, inputs, _in_order(files, standing | done), complete=False)
            if not manifest.is_complete(folder):
                manifest.write_manifest(folder, inputs, _in_order(files, done), complete=True)
    return Exported(folder, _in_order(files, done), skipped, inputs)


def _check(connection: Connection, order: Order, any_tenant: bool) -> None:
    """Raises ConfigError for what cannot be exported, before anything is written."""
    if order.tenant is not None and not any_tenant and not queries.is_known(connection, order.tenant):
        raise ConfigError(
            f"tenant {order.tenant!r} has no usage; `penstock usage --group-by tenant` lists those that do."
        )
    if gone := removed_months_for(connection, order.tenant, order.month):
        raise ConfigError(
            f"the requests of {', '.join(gone)} have been removed by retention, so {order.month} can no longer be "
            "exported; the files of an earlier export are right."
        )


def _in_order(files: Sequence[File], done: dict[str, manifest.FileEntry]) -> tuple[manifest.FileEntry, ...]:
    return tuple(done[file.name] for file in files if file.name in done)


def _write(folder: Path, file: File, form: Format) -> manifest.FileEntry:
    expected = file.expected()

    def check(totals: dict[str, Decimal]) -> None:
        for column, total in expected.items():
            if totals[column] != total:
                raise StartupError(
                    f"{file.name} would add up to {totals[column]:f} USD in {column}, the ledger says {total:f}. Nothing was "
                    "written; run `penstock ledger verify` to see what is wrong."
                )

    written = write_file(folder / file.name, file.columns, file.rows(), form, check)
    return manifest.entry_of(file.name, file.dataset, written)


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for one export at a time; what a killed export left half-written is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StartupError(f"cannot write into {str(folder)!r}: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"another export is writing {str(folder)!r}; wait for it, or choose another --out."
            ) from None
        for left in folder.glob(".*.part"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
