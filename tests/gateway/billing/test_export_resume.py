"""Exports that are killed: at every moment the folder says only what is true, and the next run finishes with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.billing.exports import Exported, Order, export
from gateway.billing.exports.manifest import check_folder
from gateway.db.connect import Database, connect
from tests.closed_months import ISSUER, OCTOBER_2, SEPTEMBER, close_all
from tests.month import deliver, requests

# Kills itself as SIGKILL does, when it has done so many things to files of the export. The interpreter tells of each.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from gateway.billing.exports import Month, Order, export
from gateway.db.connect import connect

left = int(sys.argv[3])

def look(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove") and Path(str(arguments[0])).name.startswith("."):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

order = Order("focus", Month.parse("2026-09"), "parquet", operator="Penstock Inc.")
database = connect(sys.argv[1])
sys.addaudithook(look)
export(database, order, Path(sys.argv[2]))
"""
ORDER = Order("focus", SEPTEMBER, "parquet", operator=ISSUER)
MOMENTS = range(2, 34, 3)


@pytest.fixture
def closed(sqlite_url: str, tmp_path: Path) -> Database:
    """A closed September in SQLite."""
    database = connect(sqlite_url)
    deliver(database, tmp_path / "spool", requests(60))
    close_all(database, SEPTEMBER, OCTOBER_2)
    return database


def killed(database: Database, folder: Path, moment: int) -> bool:
    """Whether an export died of SIGKILL before it was done."""
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", PROGRAM, url, str(folder), str(moment)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def contents(done: Exported) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in done.folder.iterdir()}


def test_a_killed_export_goes_on_where_it_was_and_ends_with_the_same_bytes(closed: Database, tmp_path: Path) -> None:
    whole = contents(export(closed, ORDER, tmp_path / "whole"))
    skipped = set()
    for moment in MOMENTS:
        out = tmp_path / str(moment)
        died = killed(closed, out, moment)
        folder = out / ORDER.folder
        if (folder / "manifest.json").exists():
            _, problems = check_folder(folder)
            assert [
                problem for problem in problems if "not in the manifest" not in problem and "complete" not in problem
            ] == []
            assert (
                any("not complete" in problem for problem in problems)
                or folder.joinpath("invoice_detail.parquet").exists()
            )
        again = export(closed, ORDER, out)
        assert died or again.skipped == {entry.name for entry in again.files}
        skipped.add(len(again.skipped))
        assert contents(again) == whole
        assert check_folder(folder)[1] == []
    assert skipped == {0, 1, 2, 3}, "some were killed before each file, and the last one was not killed at all"


def test_while_a_folder_is_written_anew_its_manifest_does_not_claim_to_be_complete(
    closed: Database, tmp_path: Path
) -> None:
    done = export(closed, ORDER, tmp_path)
    deliver(closed, tmp_path / "spool", requests(5, seed=8))
    (done.folder / "cost_and_usage.parquet").write_bytes(b"damaged")
    assert killed(closed, tmp_path, 4)
    _, problems = check_folder(done.folder)
    assert "the export is not complete: it was interrupted or is still being written" in problems
    assert export(closed, ORDER, tmp_path).files == done.files
