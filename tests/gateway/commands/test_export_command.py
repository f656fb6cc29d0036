"""`penstock export`: one document, one folder per order, and messages for what cannot be exported."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.db.connect import connect
from tests.gateway.commands.processes import complaint, penstock
from tests.month import deliver, requests


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A data folder with thirty requests in September 2026."""
    settings = {"PENSTOCK_DATA_DIR": str(tmp_path / "data")}
    assert penstock("migrate", environment=settings).returncode == 0
    database = connect(f"sqlite:///{tmp_path / 'data' / 'penstock.db'}")
    deliver(database, tmp_path / "data" / "spool", requests(30))
    database.close()
    return settings


def exported(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = penstock("export", *arguments, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_every_kind_is_written_and_says_the_same_number_as_usage(environment: dict[str, str], tmp_path: Path) -> None:
    out = ("--period", "2026-09", "--out", str(tmp_path / "out"))
    command = ("usage", "--since", "2026-09", "--until", "2026-10-01", "--json")
    usage = json.loads(penstock(*command, environment=environment).stdout)["total"]
    for arguments in (("focus",), ("focus", "--format", "parquet")):
        document = exported(environment, *arguments, *out)
        assert document["files"][0]["totals"]["BilledCost"] == usage["charge_usd"]
        document = exported(environment, *arguments, *out, "--view", "provider", "--operator", "Weir Ltd")
        assert document["files"][0]["totals"]["BilledCost"] == usage["cost_usd"]
    for kind in ("csv", "parquet"):
        totals = exported(environment, kind, *out, "--view", "provider")["files"][0]["totals"]
        assert (totals["charge_usd"], totals["cost_usd"]) == (usage["charge_usd"], usage["cost_usd"])
    totals = exported(environment, "journal", *out)["files"][0]["totals"]
    assert totals["debit_usd"] == totals["credit_usd"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "focus-provider-csv-2026-09", "focus-provider-parquet-2026-09", "focus-tenant-csv-2026-09",
        "focus-tenant-parquet-2026-09", "journal-csv-2026-09", "usage-provider-csv-2026-09",
        "usage-provider-parquet-2026-09",
    ]  # fmt: skip


def test_a_second_run_skips_and_force_does_not(environment: dict[str, str], tmp_path: Path) -> None:
    command = ("focus", "--period", "2026-09", "--out", str(tmp_path / "out"), "--tenant", "acme")
    states = [
        {file["state"] for file in exported(environment, *command, *more)["files"]} for more in ((), (), ("--force",))
    ]
    assert states == [{"written"}, {"skipped"}, {"written"}]
    shown = penstock("export", *command, environment=environment)
    assert "skipped" in shown.stdout
    assert "focus-tenant-csv-2026-09-acme" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--period", "September"], "'September' is not a billing period; write a month as YYYY-MM"),
        (["--period", "2199-01"], "'2199-01', which has not begun"),
        (["--period", "2026-09", "--tenant", "nobody"], "tenant 'nobody' has no usage"),
        (["--period", "2026-09", "--operator", " "], "--operator is empty"),
    ],
)
def test_what_cannot_be_exported_is_one_message(
    environment: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = penstock("export", "focus", "--out", str(tmp_path / "out"), *arguments, environment=environment)
    assert done.returncode == 2
    assert said in complaint(done)


def test_a_folder_that_cannot_be_written_is_exit_code_1(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ("--period", "2026-09", "--out", str(tmp_path / "file" / "out"))
    done = penstock("export", "csv", *arguments, environment=environment)
    assert done.returncode == 1
    assert "cannot write into" in complaint(done)
