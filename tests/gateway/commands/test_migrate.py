"""`penstock migrate`: a new database, one that is up to date, one from a newer version, and places that cannot be written."""

import sqlite3
from pathlib import Path

import pytest

from tests.gateway.commands.processes import complaint, penstock


def make_newer(file: Path) -> None:
    """Let a database say that a later version made it."""
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    connection.close()


def test_a_new_database_is_made_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    environment = {"PENSTOCK_DATA_DIR": str(tmp_path / "data")}
    for _ in range(2):
        done = penstock("migrate", environment=environment)
        assert done.returncode == 0, done.stderr
        assert "is up to date" in done.stdout


@pytest.mark.parametrize("command", [["migrate"], ["keys", "list"], ["ledger", "verify"], ["usage"]])
def test_a_database_from_a_newer_version_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "books.db"
    environment = {"DATABASE_URL": f"sqlite:///{file}", "PENSTOCK_DATA_DIR": str(tmp_path)}
    assert penstock("migrate", environment=environment).returncode == 0
    make_newer(file)
    before = file.read_bytes()
    done = penstock(*command, environment=environment)
    assert done.returncode == 1
    assert "made by a newer Penstock" in complaint(done)
    assert file.read_bytes() == before


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = penstock("migrate", "--data-dir", str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert "the data directory" in complaint(done)
    assert "--data-dir or PENSTOCK_DATA_DIR" in done.stderr


def test_a_database_that_is_neither_sqlite_nor_postgresql_is_refused(tmp_path: Path) -> None:
    done = penstock(
        "migrate", environment={"DATABASE_URL": "mysql://u:very-secret@h/d", "PENSTOCK_DATA_DIR": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "very-secret" not in complaint(done)
