"""The job that watches for drift, over records and labels in the real tables: found, told, cleared when it is over."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts import add
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.router.drift import KEEP_SECONDS, watch_drift
from gateway.jobs.runner import Context
from gateway.routing.artifacts.change import Room, assign
from gateway.routing.artifacts.queries import drift_rows, latest_drift
from gateway.scorers import Scorers, bundled_version
from gateway.settings import read_settings
from router_models.router import Router
from tests.builders import catalog
from tests.routed_traffic import Request, variant, written

START = 1_790_000_000.0
DAY = 86_400.0
ROOM = Room(4, ["default"])


class Clock:
    """The time that the job sees."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(database: Database, clock: Clock, tmp_path: Path) -> Context:
    return Context(replace(read_settings({}), data_dir=tmp_path), catalog(), database, now=clock)


def day_of(
    database: Database, day: int, count: int = 600, artifact: str | None = None, start: float = START, **changes: Any
) -> None:
    """One day's requests: ordinary ones, unless something is changed."""
    drawn = random.Random(day)
    made = []
    for number in range(count):
        quality = sorted(drawn.betavariate(3, 2) for _ in range(3))
        ordinary = Request(
            artifact or bundled_version(),
            start + day * DAY + number * DAY / count,
            score=float(drawn.random() < quality[0]) if changes.get("labelled") else None,
            rank=drawn.gauss(changes.get("hard", 0.0), 1.0),
            predicted=(quality[0], quality[1], quality[2]),
            input_tokens=round(drawn.lognormvariate(5.0, 1.0)),
            unfamiliar=("unseen_words",) if drawn.random() < changes.get("odd", 0.1) else (),
        )
        wrong = changes.get("wrong") and ordinary.score is not None
        made.append(replace(ordinary, score=0.0) if wrong else ordinary)
    written(database, made)


def told(database: Database) -> list[tuple[str, str, bool]]:
    """Alerts, oldest first: kind, measure, whether it has ended."""
    rows = reversed(list_alerts(database)["alerts"])
    return [
        (row["kind"], row["document"]["measure"] if "document" in row else row["measure"], row["ended_at"] is not None)
        for row in rows
    ]


def test_drift_is_told_once_and_cleared_when_it_is_over(context: Context, clock: Clock) -> None:
    for day in range(8):
        day_of(context.database, day, 200 if day < 7 else 600)
    clock.now = START + 6 * DAY
    assert watch_drift(context) is None, "the first week is not over"
    clock.now = START + 8 * DAY
    assert watch_drift(context) == "default: as it was"
    day_of(context.database, 8, hard=1.5, odd=0.6)
    clock.now = START + 9 * DAY
    assert "rank" in str(watch_drift(context))
    watch_drift(context)
    # Both were told in the same moment.
    assert sorted(told(context.database)) == [("router_drift", "rank", False), ("router_drift", "unfamiliar", False)]
    day_of(context.database, 9)
    clock.now = START + 10 * DAY
    assert watch_drift(context) == "default: as it was"
    assert [ended for _, _, ended in told(context.database)] == [True, True]
    with snapshot(context.database) as connection:
        rows = drift_rows(connection, 500)
        assert [row["measure"] for row in rows].count("reference") == 1
        drifted = [row for row in rows if row["drifted"]]
        assert {row["measure"] for row in drifted} == {"rank", "unfamiliar"}
        assert all(row["artifact"] == bundled_version() and row["samples"] >= 600 for row in drifted)


def test_without_drift_nothing_is_told_over_many_windows(context: Context, clock: Clock) -> None:
    for day in range(12):
        day_of(context.database, day, 600)
    for hours in range(7 * 24, 12 * 24, 4):
        clock.now = START + hours * 3600.0
        watch_drift(context)
    assert told(context.database) == []


def test_probabilities_that_do_not_come_true_are_told(context: Context, clock: Clock) -> None:
    day_of(context.database, 0, 600, labelled=True)
    clock.now = START + DAY
    assert watch_drift(context) == "default: as it was", "labels need no reference"
    day_of(context.database, 1, 900, labelled=True, wrong=True)
    clock.now = START + 2 * DAY
    assert "calibration" in str(watch_drift(context))
    assert told(context.database) == [("router_drift", "calibration", False)]


def test_a_new_champion_has_a_reference_of_its_own(context: Context, clock: Clock, tmp_path: Path) -> None:
    version = add(context.database, variant(tmp_path, "mine"), "mine", "tester", START)["version"]
    with transaction(context.database) as connection:
        assign(connection, "default", version, None, 0.1, "tester", START, "a test", ROOM)
    day_of(context.database, 0, artifact=version)
    clock.now = START + DAY
    assert watch_drift(context) is None, "it has none yet, and no week"
    for day in range(1, 8):
        day_of(context.database, day, artifact=version)
    clock.now = START + 8 * DAY
    assert watch_drift(context) == "default: as it was"
    other = add(context.database, variant(tmp_path, "other"), "other", "tester", START)["version"]
    day_of(context.database, 8, artifact=version, hard=2.0)
    clock.now = START + 9 * DAY
    watch_drift(context)
    assert told(context.database) == [("router_drift", "rank", False)]
    with transaction(context.database) as connection:
        assign(connection, "default", other, None, 0.1, "tester", clock.now, "a test", ROOM)
    watch_drift(context)
    assert told(context.database) == [("router_drift", "rank", True)], "of the new one nothing is known yet"


def test_what_was_measured_is_shown_on_metrics_and_forgotten_in_time(context: Context, clock: Clock) -> None:
    for day in range(8):
        day_of(context.database, day)
    clock.now = START + 8 * DAY
    watch_drift(context)
    with snapshot(context.database) as connection:
        shown = {(policy, measure): value for policy, measure, value in latest_drift(connection, clock.now - 60)}
    assert set(shown) == {("default", name) for name in ("rank", "difficulty", "input_tokens", "unfamiliar")}
    clock.now += KEEP_SECONDS + DAY
    watch_drift(context)
    with snapshot(context.database) as connection:
        assert [row["measure"] for row in drift_rows(connection, 500)] == ["reference"]


def test_a_gateway_reports_the_drift_that_the_job_has_just_measured(context: Context, clock: Clock) -> None:
    clock.now = time.time()
    for day in range(8):
        day_of(context.database, day, start=clock.now - 8 * DAY)
    watch_drift(context)
    reported: dict[tuple[str, ...], float] = {}
    scorers = Scorers(
        Router.load(),
        context.database,
        ["default"],
        lambda name, value, labels: reported.update({(name, *labels): value}),
    )
    scorers.renew()
    assert 0.0 < reported["penstock_router_drift", "default", "rank"] < 0.25
