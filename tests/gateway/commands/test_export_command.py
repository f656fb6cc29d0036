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


def test_an_export_says_that_its_month_is_open_and_is_checked_against_its_manifest(
    environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shown = penstock("export", "focus", "--period", "2026-09", "--out", str(out), environment=environment)
    assert "2026-09 is still open: its numbers may grow until it is closed." in shown.stdout
    folder = out / "focus-tenant-csv-2026-09"
    whole = penstock("export", "verify", str(folder), environment=environment)
    assert (whole.returncode, whole.stdout) == (0, "focus of 2026-09 (open) is whole.\n")
    (folder / "extra.csv").write_text("x")
    (folder / "billing_period.csv").unlink()
    damaged = bytearray((folder / "cost_and_usage.csv").read_bytes())
    damaged[-3] ^= 1
    (folder / "cost_and_usage.csv").write_bytes(damaged)
    checked = penstock("export", "verify", str(folder), "--json", environment=environment)
    assert checked.returncode == 1
    document = json.loads(checked.stdout)
    assert not document["ok"]
    assert [problem.split()[0] for problem in document["problems"]] == [
        "cost_and_usage.csv", "billing_period.csv", "extra.csv",
    ]  # fmt: skip
    assert "has the SHA-256" in document["problems"][0]
    nothing = penstock("export", "verify", str(tmp_path), environment=environment)
    assert nothing.returncode == 2
    assert "name the folder of one export" in complaint(nothing)


def test_a_scheduled_export_is_run_now_and_listed(environment: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "billing: {issuer: {name: Weir Ltd}}\n"
        "exports:\n"
        "  - {name: finance, kind: focus, to: finance, tags: [team]}\n"
        "  - {name: broken, kind: csv, to: data.txt/out}\n"
    )
    (tmp_path / "data" / "data.txt").touch()
    given = ("--config", str(config))
    assert "No export has run yet" in penstock("export", "runs", *given, environment=environment).stdout
    done = penstock("export", "run", "finance", "--period", "2026-09", *given, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["state"], run["asked_by"], run["period_state"]) == ("done", "command", "open")
    folder = tmp_path / "data" / "finance" / "focus-tenant-csv-2026-09"
    assert penstock("export", "verify", str(folder), environment=environment).returncode == 0
    assert "Weir Ltd" in (folder / "cost_and_usage.csv").read_text()
    failed = penstock("export", "run", "broken", "--period", "2026-09", *given, environment=environment)
    assert failed.returncode == 1
    assert "cannot write into" in failed.stderr
    listed = json.loads(penstock("export", "runs", *given, "--json", environment=environment).stdout)
    assert [(run["name"], run["state"]) for run in listed["runs"]] == [("broken", "queued"), ("finance", "done")]
    only = penstock("export", "runs", "--name", "finance", *given, environment=environment)
    assert "broken" not in only.stdout
    for arguments, said in (
        (("nobody",), "no scheduled export has the name 'nobody'. Known: finance, broken."),
        (("finance", "--period", "2026-09-01"), "'2026-09-01' is not a billing period"),
        (("broken", "--period", "2026-09"), "queued or running already"),
    ):
        refused = penstock("export", "run", *arguments, *given, environment=environment)
        assert refused.returncode in (1, 2)
        assert said in complaint(refused)
