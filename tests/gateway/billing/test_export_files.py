"""Export files: whole or not there, verified and skipped the second time, and safe to open."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import update

from gateway.billing.exports import Exported, Month, Order, export
from gateway.billing.exports.month import Slice
from gateway.billing.exports.queries import usage_pages
from gateway.db.connect import Database, connect
from gateway.db.tables import usage_events
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, StartupError
from tests.month import deliver, requests

SEPTEMBER = Month.parse("2026-09")
FOCUS = Order("focus", SEPTEMBER, "csv")
USAGE = Order("usage", SEPTEMBER, "csv", "provider")


def manifest_of(done: Exported) -> dict[str, Any]:
    return dict(json.loads((done.folder / "manifest.json").read_text()))


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def small(sqlite_url: str, tmp_path: Path) -> Database:
    """A SQLite database with forty requests in September."""
    database = connect(sqlite_url)
    deliver(database, tmp_path / "spool", requests(40))
    return database


def test_the_manifest_says_what_each_file_holds(small: Database, tmp_path: Path) -> None:
    done = export(small, FOCUS, tmp_path)
    document = manifest_of(done)
    assert document["complete"]
    assert document["generated_by"].startswith("penstock ")
    assert document["inputs"]["requests"] == 40
    assert (document["inputs"]["period"], document["inputs"]["view"]) == ("2026-09", "tenant")
    for entry in document["files"]:
        content = (done.folder / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["bytes"]
        assert len(lines_of(done.folder / entry["name"])) == entry["rows"]
    assert done.files[0].totals["BilledCost"] == done.files[0].totals["ListCost"]


def test_a_second_run_verifies_and_leaves_everything_alone(small: Database, tmp_path: Path) -> None:
    first = export(small, FOCUS, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir() if path.name != ".lock"}
    second = export(small, FOCUS, tmp_path)
    assert second.skipped == {"cost_and_usage.csv", "billing_period.csv"}
    assert second.files == first.files
    assert before == {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir() if path.name != ".lock"}


def test_what_is_damaged_missing_or_stale_is_written_again(small: Database, tmp_path: Path) -> None:
    first = export(small, FOCUS, tmp_path)
    costs = first.folder / "cost_and_usage.csv"
    content = costs.read_bytes()
    costs.write_bytes(content[:-1] + b"x")
    assert export(small, FOCUS, tmp_path).skipped == {"billing_period.csv"}
    assert costs.read_bytes() == content
    costs.unlink()
    assert export(small, FOCUS, tmp_path).skipped == {"billing_period.csv"}
    assert costs.read_bytes() == content
    (first.folder / "manifest.json").write_text("{broken")
    assert not export(small, FOCUS, tmp_path).skipped
    assert not export(small, FOCUS, tmp_path, force=True).skipped

    deliver(small, tmp_path / "spool", requests(2, seed=5))
    grown = export(small, FOCUS, tmp_path)
    assert not grown.skipped
    assert costs.read_bytes() != content


def test_the_same_usage_gives_the_same_bytes_on_both_databases(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    events = requests(40)
    for order in (FOCUS, USAGE, Order("journal", SEPTEMBER, "csv")):
        found = []
        for name, url in (("one", sqlite_url), ("two", postgres_url)):
            database = connect(url)
            deliver(database, tmp_path / name, events)
            done = export(database, order, tmp_path / name)
            found.append([entry.sha256 for entry in done.files])
            database.close()
        assert found[0] == found[1]


def test_orders_do_not_overwrite_each_other(small: Database, tmp_path: Path) -> None:
    orders = [
        replace(order, **changes)  # type: ignore[arg-type]
        for order in (FOCUS, USAGE)
        for changes in ({}, {"view": "provider"}, {"view": "tenant"}, {"form": "parquet"}, {"tenant": "acme"},
                        {"tenant": 'Ünïted, "Inc"'}, {"month": Month.parse("2026-10")})
    ]  # fmt: skip
    folders = {export(small, order, tmp_path).folder for order in orders}
    assert len(folders) == len({replace(order) for order in orders})
    assert all(folder.parent == tmp_path for folder in folders)


def test_a_month_without_usage_has_files_with_headers(small: Database, tmp_path: Path) -> None:
    for what in ("focus", "usage", "journal"):
        done = export(small, Order(what, Month.parse("2025-01"), "csv"), tmp_path)
        assert done.files[0].rows == 0
        assert (done.folder / done.files[0].name).read_text().count("\n") == 1


def test_an_export_that_cannot_be_written_leaves_the_old_one_and_no_rest(small: Database, tmp_path: Path) -> None:
    done = export(small, USAGE, tmp_path)
    content = (done.folder / "usage.csv").read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from gateway.billing.exports import Month, Order, export\n"
        "from gateway.db.connect import connect\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "database = connect(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "order = Order('usage', Month.parse('2026-09'), 'csv', 'provider')\n"
        "export(database, order, Path(sys.argv[2]), force=True)\n"
    )
    url = small.engine.url.render_as_string(hide_password=False)
    ran = subprocess.run(
        [sys.executable, "-c", program, url, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "StartupError: cannot write" in ran.stderr, ran.stderr
    assert "File too large" in ran.stderr
    assert (done.folder / "usage.csv").read_bytes() == content
    assert not list(done.folder.glob(".*.part"))
    assert export(small, USAGE, tmp_path).skipped == {"usage.csv"}


def test_what_a_killed_export_left_is_removed(small: Database, tmp_path: Path) -> None:
    folder = tmp_path / USAGE.folder
    folder.mkdir()
    (folder / ".usage.csv.4711.part").write_text("half")
    export(small, USAGE, tmp_path)
    assert not list(folder.glob(".*.part"))


def test_a_folder_that_cannot_be_made_is_named(small: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"cannot write into .*file/usage-provider-csv-2026-09"):
        export(small, USAGE, tmp_path / "file")


def test_two_exports_into_one_folder_do_not_run_at_once(small: Database, tmp_path: Path) -> None:
    folder = tmp_path / USAGE.folder
    folder.mkdir()
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StartupError, match="another export is writing"):
        export(small, USAGE, tmp_path)
    os.close(lock)
    assert export(small, USAGE, tmp_path).files


def test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_and_kept_in_parquet(
    small: Database, tmp_path: Path
) -> None:
    evil = '=HYPERLINK("http://x","y")'
    with transaction(small) as connection:
        connection.execute(update(usage_events).values(session_id=evil, tags=["a,b", 'q"', "\n"]))
    rows = lines_of(export(small, USAGE, tmp_path).folder / "usage.csv")
    assert {row["session_id"] for row in rows} == {f"'{evil}"}
    assert {row["tags"] for row in rows} == {'["a,b","q\\"","\\n"]'}
    table = pyarrow.parquet.read_table(export(small, replace(USAGE, form="parquet"), tmp_path).folder / "usage.parquet")
    assert set(table["session_id"].to_pylist()) == {evil}


def test_parquet_has_exact_types(small: Database, tmp_path: Path) -> None:
    folder = export(small, replace(FOCUS, form="parquet"), tmp_path).folder
    schema = pyarrow.parquet.read_schema(folder / "cost_and_usage.parquet")
    assert schema.field("BilledCost").type == pyarrow.decimal128(38, 18)
    assert schema.field("ListUnitPrice").type == pyarrow.decimal128(38, 16)
    assert schema.field("PricingQuantity").type == pyarrow.decimal128(38, 14)
    assert schema.field("ChargePeriodStart").type == pyarrow.timestamp("us", tz="UTC")
    schema = pyarrow.parquet.read_schema(
        export(small, replace(USAGE, form="parquet"), tmp_path).folder / "usage.parquet"
    )
    assert schema.field("cost_usd").type == schema.field("charge_usd").type == pyarrow.decimal128(38, 17)
    assert schema.field("reasoning").type == pyarrow.int64()


def test_without_pyarrow_only_parquet_is_refused_and_how_to_get_it_is_said(small: Database, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "sys.argv[1:] = ['export', sys.argv[2], '--period', '2026-09', '--out', sys.argv[1]]\n"
        "from gateway.cli import main\n"
        "main()\n"
    )
    url = small.engine.url.render_as_string(hide_password=False)
    codes = {}
    for kind in ("csv", "parquet"):
        command = [sys.executable, "-c", program, str(tmp_path / "out"), kind]
        environment = {**os.environ, "DATABASE_URL": url}
        codes[kind] = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert codes["csv"].returncode == 0, codes["csv"].stderr
    assert codes["parquet"].returncode == 2
    assert "pip install 'penstock[export]'" in codes["parquet"].stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["usage-tenant-csv-2026-09"]


@pytest.mark.parametrize("at_a_time", [1, 7, 40, 41])
def test_pages_of_usage_join_without_gaps(database: Database, tmp_path: Path, at_a_time: int) -> None:
    events = requests(40)
    same_moment = [replace(one, started_at=events[5].started_at) for one in requests(5, seed=8)]
    deliver(database, tmp_path / "spool", [*events, *same_moment])
    whole = Slice(SEPTEMBER.start, SEPTEMBER.end)
    with snapshot(database) as connection:
        pages = [list(page) for page in usage_pages(connection, whole, None, at_a_time)]
        of_acme = [row["tenant"] for page in usage_pages(connection, whole, "acme", at_a_time) for row in page]
    found = [(row["started_at"], row["request_id"]) for page in pages for row in page]
    assert len(set(found)) == len(found) == 45
    assert found == sorted(found)
    assert max(map(len, pages)) <= at_a_time
    assert of_acme == ["acme"] * sum(one.tenant == "acme" for one in [*events, *same_moment])


def test_an_unknown_tenant_and_a_tenants_journal_are_refused(small: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tenant 'acmee' has no usage"):
        export(small, replace(FOCUS, tenant="acmee"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="would not balance"):
        export(small, Order("journal", SEPTEMBER, "csv", tenant="acme"), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "26-09", "2026-9", "2026-09-01", "9999-12", " 2026-09"]
)
def test_what_is_not_a_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a billing period"):
        Month.parse(text)
