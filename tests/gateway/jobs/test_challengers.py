"""The job that judges artifacts, over requests and labels in the real tables: the bad one goes, the good one stays."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts import add
from gateway.config_routing import Rollback, Routing
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.router.challengers import judge_artifacts
from gateway.jobs.runner import Context
from gateway.routing.artifacts.change import Room, assign
from gateway.routing.artifacts.queries import BUNDLED, Assignment, assignment_rows, change_rows
from gateway.scorers import bundled_version
from gateway.settings import read_settings
from tests.builders import catalog
from tests.receiver import SECRET, Receiver, running_receiver
from tests.routed_traffic import Request, split, variant, written

START = 1_790_000_000.0
HOUR = 3600.0
REQUESTS = 3000
EVERY = 10.0


class Clock:
    """The time that a job sees."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def context(database: Database, receiver: Receiver, clock: Clock, tmp_path: Path) -> Context:
    built = catalog(alerts={"webhook": {"url": receiver.url, "secret": SECRET}})
    return Context(replace(read_settings({}), data_dir=tmp_path), built, database, now=clock)


@pytest.fixture
def versions(database: Database, tmp_path: Path) -> tuple[str, str]:
    """An artifact to be champion and one to challenge it."""
    made = [
        add(database, variant(tmp_path, name, 0.1 * number), name, "tester", START)
        for number, name in enumerate(("old", "new"), 1)
    ]
    return made[0]["version"], made[1]["version"]


def with_rules(context: Context, **rules: Any) -> Context:
    routing = Routing(rollback=Rollback(**rules))
    return replace(context, catalog=replace(context.catalog, routing=routing))


def given(
    database: Database, champion: str, challenger: str | None = None, share: float = 0.1, at: float = START
) -> None:
    with transaction(database) as connection:
        assign(connection, "default", champion, challenger, share, "tester", at, "a test", Room(9, ["default"]))


def assigned(database: Database) -> Assignment:
    with snapshot(database) as connection:
        return assignment_rows(connection)["default"]


def answers(version: str, good: float, labelled: float = 1.0, **more: Any) -> Callable[[random.Random], Request]:
    """A maker of requests of an artifact whose answers are good so often."""

    def make(chance: random.Random) -> Request:
        score = float(chance.random() < good) if chance.random() < labelled else None
        return Request(version, START, score, **more)

    return make


def every_hour(context: Context, clock: Clock, hours: int) -> int | None:
    """Look every hour; the hour in which a challenger or champion was changed."""
    before = assigned(context.database)
    for hour in range(1, hours + 1):
        clock.now = START + hour * HOUR
        judge_artifacts(context)
        if assigned(context.database) != before:
            return hour
    return None


HOURS = int(REQUESTS * EVERY / HOUR) + 1


def test_a_bad_challenger_is_taken_back_and_the_operator_is_told_why(
    context: Context, clock: Clock, versions: tuple[str, str], receiver: Receiver
) -> None:
    old, new = versions
    given(context.database, old, new, 0.2)
    written(context.database, split(1, REQUESTS, START, answers(old, 0.8), answers(new, 0.5), 0.2, EVERY))
    hour = every_hour(context, clock, HOURS)
    assert hour is not None
    assert hour > 1, "an hour of 72 labels does not prove it"
    now = assigned(context.database)
    assert (now.champion, now.challenger) == (old, None)
    with snapshot(context.database) as connection:
        (change, _) = change_rows(connection, 5)
    assert (change["action"], change["actor"]) == ("rollback", "job challengers")
    assert change["reason"].startswith(f"{new} answers worse by more than 0.02: difference of quality -0.")
    assert change["evidence"]["quality"]["high"] < -0.02
    (alert,) = list_alerts(context.database)["alerts"]
    assert (alert["kind"], alert["ended_at"] is not None) == ("router_change", True)
    send_outbox(context)
    (told,) = receiver.taken
    assert told["type"] == "penstock.alert.router_change"
    assert f"challenger {new} was taken back" in told["data"]["text"]
    assert judge_artifacts(context) is None, "there is nothing left to compare"


@pytest.mark.parametrize("seed", range(4))
def test_a_challenger_that_is_as_good_stays_however_often_it_is_looked_at(
    context: Context, clock: Clock, versions: tuple[str, str], seed: int
) -> None:
    old, new = versions
    given(context.database, old, new, 0.2)
    written(context.database, split(seed, REQUESTS, START, answers(old, 0.7), answers(new, 0.7), 0.2, EVERY))
    assert every_hour(context, clock, HOURS) is None
    said = judge_artifacts(context)
    assert said is not None
    assert said.startswith("default: not decided: difference of quality")
    assert list_alerts(context.database)["alerts"] == []


def test_feedback_takes_nothing_back_unless_the_operator_says_so(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    """Whoever has a key of the policy could otherwise have its artifact taken back for every tenant."""
    old, new = versions
    given(context.database, old, new, 0.2)
    zeros = split(1, REQUESTS, START, answers(old, 0.8), answers(new, 0.0), 0.2, EVERY)
    written(context.database, zeros, "feedback")
    clock.now = START + HOURS * HOUR
    assert "0 labels against 0" in str(judge_artifacts(context))
    assert assigned(context.database).challenger == new
    judge_artifacts(with_rules(context, sources=["feedback"]))
    assert assigned(context.database).challenger is None


def test_a_policy_that_left_the_configuration_is_not_judged(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, new, 0.2)
    written(context.database, split(1, REQUESTS, START, answers(old, 0.8), answers(new, 0.0), 0.2, EVERY))
    clock.now = START + HOURS * HOUR
    assert judge_artifacts(replace(context, catalog=replace(context.catalog, policies={}))) is None
    assert assigned(context.database).challenger == new


def test_a_challenger_whose_requests_fail_goes_without_any_label(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, new, 0.3)
    failing = lambda chance: Request(new, START, failed=chance.random() < 0.5)  # noqa: E731
    written(context.database, split(3, REQUESTS, START, answers(old, 0.7, 0.0), failing, 0.3, EVERY))
    assert every_hour(context, clock, HOURS) is not None
    assert assigned(context.database).challenger is None


def test_a_new_champion_that_is_worse_than_the_one_before_is_taken_back(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, at=START - 40 * 86_400)
    given(context.database, new, at=START)
    chance = random.Random(4)
    before = [replace(answers(old, 0.8)(chance), at=START - (number + 1) * 60.0) for number in range(1000)]
    after = [replace(answers(new, 0.5)(chance), at=START + number * EVERY) for number in range(1500)]
    written(context.database, before + after)
    hour = every_hour(context, clock, 5)
    assert hour is not None
    now = assigned(context.database)
    assert (now.champion, now.predecessor) == (old, None)


def test_a_new_champion_is_watched_for_so_many_days_only(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, at=START - 86_400)
    given(context.database, new, at=START)
    written(context.database, [Request(old, START - 60.0), Request(new, START + 60.0)])
    clock.now = START + 6 * 86_400
    assert "default: not decided" in str(judge_artifacts(context))
    clock.now = START + 8 * 86_400
    assert judge_artifacts(context) is None


def test_the_bundled_artifact_can_be_champion_and_challenger(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    _, new = versions
    given(context.database, BUNDLED, new, 0.3)
    written(context.database, split(5, 1500, START, answers(bundled_version(), 0.8), answers(new, 0.4), 0.3, EVERY))
    assert every_hour(context, clock, 6) is not None
    given(context.database, new, BUNDLED, 0.3, at=START + 10 * HOUR)
    written(
        context.database,
        split(5, 1500, START + 10 * HOUR, answers(new, 0.8), answers(bundled_version(), 0.4), 0.3, EVERY),
    )
    clock.now = START + 15 * HOUR
    judge_artifacts(context)
    assert (assigned(context.database).champion, assigned(context.database).challenger) == (new, None)


def test_without_automatic_rollbacks_it_is_told_until_somebody_acts(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    manual = with_rules(context, automatic=False)
    given(context.database, old, new, 0.3)
    written(context.database, split(6, 1500, START, answers(old, 0.9), answers(new, 0.4), 0.3, EVERY))
    clock.now = START + 5 * HOUR
    assert "WORSE, and rollbacks are not automatic" in str(judge_artifacts(manual))
    judge_artifacts(manual)
    assert assigned(context.database).challenger == new
    (alert,) = list_alerts(context.database)["alerts"]
    assert alert["ended_at"] is None
    given(context.database, old, at=clock.now)
    judge_artifacts(manual)
    (alert,) = list_alerts(context.database)["alerts"]
    assert alert["ended_at"] is not None


def test_a_challenger_that_is_proved_better_becomes_champion_where_that_is_asked_for(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, new, 0.3)
    written(context.database, split(7, 2000, START, answers(old, 0.5), answers(new, 0.9), 0.3, EVERY))
    clock.now = START + 6 * HOUR
    judge_artifacts(context)
    assert assigned(context.database).challenger == new
    judge_artifacts(with_rules(context, promote=True))
    now = assigned(context.database)
    assert (now.champion, now.challenger, now.predecessor) == (new, None, old)
    (alert,) = list_alerts(context.database)["alerts"]
    assert alert["subject"] == "Penstock: router of policy default: promote"


def test_what_an_artifact_had_no_say_in_does_not_count(
    context: Context, clock: Clock, versions: tuple[str, str]
) -> None:
    old, new = versions
    given(context.database, old, new, 0.3)
    deep = split(8, 1500, START, answers(old, 0.9, mode="deep"), answers(new, 0.1, mode="deep"), 0.3, EVERY)
    other = split(9, 1500, START, answers(old, 0.9, policy="b"), answers(new, 0.1, policy="b"), 0.3, EVERY)
    earlier = split(9, 1500, START - 86_400, answers(old, 0.9), answers(new, 0.1), 0.3, EVERY)
    written(context.database, deep + other + earlier)
    clock.now = START + 6 * HOUR
    assert judge_artifacts(context) is None
    feedback = split(10, 1500, START, answers(old, 0.9), answers(new, 0.1), 0.3, EVERY)
    written(context.database, feedback, "feedback")
    assert "0 labels against 0" in str(judge_artifacts(with_rules(context, sources=("judge",))))
    judge_artifacts(with_rules(context, sources=("feedback",)))
    assert assigned(context.database).challenger is None
