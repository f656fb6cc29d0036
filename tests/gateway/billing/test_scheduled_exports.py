"""Exports that are written by themselves: due at their time, once, retried, taken over, and again when a month is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.exports.manifest import check_folder
from gateway.billing.exports.scheduled import queries
from gateway.billing.exports.scheduled.run import MOST_ATTEMPTS, ask, list_runs, work
from gateway.catalog import Catalog, build_catalog
from gateway.config import check_config
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict, NotFound
from gateway.jobs.exports import office_of, run_exports
from gateway.settings import Settings, read_settings
from tests.closed_months import OCTOBER_2, SEPTEMBER, close_all
from tests.invoicing import day
from tests.month import deliver, requests
from tests.s3 import REGION, S3Server, running_s3


@dataclass
class Context:
    """What a job has, with a clock of its own."""

    settings: Settings
    catalog: Catalog
    database: Database
    at: datetime
    stop: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        return self.at.timestamp()

    def run(self, *, later: timedelta = timedelta(0)) -> list[dict[str, Any]]:
        """One run of the job; all runs that are known afterwards, oldest first."""
        self.at += later
        run_exports(self)
        return list(reversed(list_runs(self.database)["runs"]))


def context(database: Database, folder: Path, at: str, *exports: dict[str, Any]) -> Context:
    others = {"billing": {"issuer": {"name": "Weir Ltd"}}, "tenants": [{"name": "no-usage-yet"}]}
    config = check_config({"exports": list(exports), **others}, "test")
    settings = read_settings({"PENSTOCK_DATA_DIR": str(folder)})
    return Context(settings, build_catalog(config, "test"), database, day(at))


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


def test_an_export_runs_once_when_it_is_due_and_says_what_it_wrote(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(40))
    exports = (
        {"name": "finance", "kind": "focus", "to": str(tmp_path / "finance"), "at": "2 06:00", "format": "parquet"},
        {"name": "erp", "kind": "journal", "to": "erp", "at": "2 06:00"},
        {"name": "each", "kind": "parquet", "to": "each", "at": "2 06:00", "tenants": ["acme", "no-usage-yet"]},
    )
    made = context(database, tmp_path, "2026-10-02T06:00", *exports)
    runs = made.run()
    assert [(run["name"], run["period"], run["state"], run["asked_by"]) for run in runs] == [
        ("finance", "2026-09", "done", "schedule"), ("erp", "2026-09", "done", "schedule"),
        ("each", "2026-09", "done", "schedule"),
    ]  # fmt: skip
    assert {run["period_state"] for run in runs} == {"open"}
    folders = {"finance": tmp_path / "finance", "erp": tmp_path / "erp", "each": tmp_path / "each"}
    for run in runs:
        for file in run["files"]:
            path = folders[run["name"]] / file["folder"] / file["name"]
            assert path.stat().st_size == file["bytes"]
            inputs, problems = check_folder(path.parent)
            assert problems == []
            assert inputs["operator"] in ("Weir Ltd", None)
        assert run["bytes"] == sum(file["bytes"] for file in run["files"])
    assert {file["folder"] for file in runs[2]["files"]} == {
        "usage-tenant-parquet-2026-09-acme", "usage-tenant-parquet-2026-09-no-usage-yet",
    }  # fmt: skip
    assert made.run(later=timedelta(days=20)) == runs, "nothing is due before the next month"
    assert [run["period"] for run in made.run(later=timedelta(days=20))[3:]] == ["2026-10"] * 3


def test_a_month_that_was_open_is_exported_again_when_it_is_closed(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", requests(40))
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "focus", "to": "out"},
                   {"name": "daily", "kind": "csv", "to": "days", "period": "day"})  # fmt: skip
    runs = made.run()
    assert [(run["name"], run["period"], run["period_state"]) for run in runs] == [
        ("one", "2026-09", "open"), ("daily", "2026-09-30", "open"),
    ]  # fmt: skip
    close_all(database, SEPTEMBER, OCTOBER_2)
    made.at = OCTOBER_2 + timedelta(hours=1)
    [again] = made.run()[2:]
    assert (again["name"], again["period"], again["period_state"]) == ("one", "2026-09", "closed")
    assert {file["name"] for file in again["files"]} == {
        "cost_and_usage.csv", "billing_period.csv", "invoice_detail.csv",
    }  # fmt: skip
    assert len(made.run(later=timedelta(hours=1))) == 3


def test_a_bucket_gets_the_files_and_the_staging_folder_goes(
    database: Database, tmp_path: Path, server: S3Server
) -> None:
    name = f"finance-{database.engine.dialect.name}"
    deliver(database, tmp_path / "spool", requests(40))
    s3 = {"endpoint": server.endpoint, "region": REGION, "access_key_id": server.access_key_id,
          "secret_access_key": server.secret_access_key, "timeout_seconds": 5}  # fmt: skip
    made = context(
        database,
        tmp_path,
        "2026-10-01T05:00",
        {"name": "one", "kind": "focus", "to": f"s3://{name}/pen/stock", "s3": s3},
    )
    [run] = made.run()
    assert (run["state"], run["attempts"], run["files"]) == ("queued", 1, None)
    assert "NoSuchBucket: the bucket does not exist; make it." in run["error"]
    assert server.secret_access_key not in str(run)
    staged = tmp_path / "exports" / "one" / "focus-tenant-csv-2026-09"
    assert check_folder(staged)[1] == []
    assert made.run()[0]["attempts"] == 1, "not before its time"
    server.make_bucket(name)
    [run] = made.run(later=timedelta(minutes=1))
    assert (run["state"], run["attempts"], run["error"]) == ("done", 2, None)
    there = {key.removeprefix("pen/stock/focus-tenant-csv-2026-09/") for key in server.objects(name)}
    assert there == {"cost_and_usage.csv", "billing_period.csv", "manifest.json"}
    assert not staged.exists()


def test_an_export_that_cannot_succeed_is_given_up_and_can_be_asked_for_again(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "file/out"})
    pauses = []
    for attempt in range(1, MOST_ATTEMPTS + 1):
        [run] = made.run()
        assert run["attempts"] == attempt
        assert "cannot write into" in run["error"]
        if run["retry_at"]:
            pauses.append(datetime.fromisoformat(run["retry_at"]) - made.at)
            made.at += pauses[-1]
    assert [pause / timedelta(minutes=1) for pause in pauses] == [1, 4, 16, 64, 256, 360, 360]
    assert (run["state"], run["retry_at"]) == ("failed", None)
    assert made.run(later=timedelta(days=1)) == [run]
    (tmp_path / "file").unlink()
    office = office_of(made.settings, made.catalog, database, made.now)
    asked = ask(office, "one", "2026-09", "api")
    assert asked["state"] == "queued"
    done = work(office)
    assert done is not None
    assert (done["state"], done["asked_by"]) == ("done", "api")


def test_a_run_whose_process_died_is_taken_over_and_one_that_lives_is_not(database: Database, tmp_path: Path) -> None:
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out"})
    office = office_of(made.settings, made.catalog, database, made.now)
    asked = ask(office, "one", None, "command")
    with transaction(database) as connection:
        assert queries.take(connection, "somebody", made.at, ("one",), None)
    assert work(office) is None
    made.at += timedelta(seconds=50)
    with transaction(database) as connection:
        assert queries.keep_alive(connection, asked["id"], "somebody", made.at)
    made.at += timedelta(seconds=50)
    assert work(office) is None
    made.at += timedelta(seconds=11)
    done = work(office)
    assert done is not None
    assert (done["id"], done["state"], done["attempts"]) == (asked["id"], "done", 2)
    with transaction(database) as connection:
        assert not queries.keep_alive(connection, asked["id"], "somebody", made.at)
        assert not queries.finish(connection, asked["id"], "somebody", {"state": "failed"})


def test_a_run_that_kills_its_process_every_time_is_given_up(database: Database, tmp_path: Path) -> None:
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out"})
    office = office_of(made.settings, made.catalog, database, made.now)
    ask(office, "one", None, "command")
    for _ in range(MOST_ATTEMPTS):
        with transaction(database) as connection:
            assert queries.take(connection, "dies", made.at, ("one",), None)
        made.at += queries.DEAD_AFTER + timedelta(seconds=1)
    done = work(office)
    assert done is not None
    assert (done["state"], done["files"]) == ("failed", None)
    assert "its process died again and again" in done["error"]


def test_one_run_is_taken_by_one_of_many(database: Database, tmp_path: Path) -> None:
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out"})
    offices = [office_of(made.settings, made.catalog, database, made.now) for _ in range(4)]
    ask(offices[0], "one", None, "api")
    found: list[object] = []
    threads = [threading.Thread(target=lambda each=each: found.append(work(each))) for each in offices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert sum(run is not None for run in found) == 1
    assert len(list_runs(database)["runs"]) == 1


def test_what_cannot_be_asked_for_is_refused(database: Database, tmp_path: Path) -> None:
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out", "period": "day"})
    office = office_of(made.settings, made.catalog, database, made.now)
    with pytest.raises(NotFound, match="no scheduled export has the name 'two'"):
        ask(office, "two", None, "api")
    with pytest.raises(ValueError, match="'2026-09' is not a day"):
        ask(office, "one", "2026-09", "api")
    with pytest.raises(ValueError, match="2026-10-02 has not begun"):
        ask(office, "one", "2026-10-02", "api")
    ask(office, "one", "2026-09-30", "api")
    with pytest.raises(Conflict, match="one of 2026-09-30 is queued or running already"):
        ask(office, "one", "2026-09-30", "api")
    assert list_runs(database, limit=1)["next"] is None


def test_a_tenant_that_nobody_knows_is_not_exported_as_nothing(database: Database, tmp_path: Path) -> None:
    mistyped = {"name": "one", "kind": "csv", "to": "out", "tenants": ["acmee"]}
    [run] = context(database, tmp_path, "2026-10-01T05:00", mistyped).run()
    assert run["state"] == "queued"
    assert "tenant 'acmee' has no usage" in run["error"]


def test_a_run_of_a_period_that_is_no_longer_exported_says_so(database: Database, tmp_path: Path) -> None:
    made = context(database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out"})
    ask(office_of(made.settings, made.catalog, database, made.now), "one", None, "api")
    changed = context(
        database, tmp_path, "2026-10-01T05:00", {"name": "one", "kind": "csv", "to": "out", "period": "day"}
    )
    [of_month, of_day] = changed.run()
    assert "one exports every day now, and 2026-09 is none" in of_month["error"]
    assert (of_day["period"], of_day["state"]) == ("2026-09-30", "done")
