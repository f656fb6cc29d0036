"""The job that recalibrates: wrong probabilities are put right by own labels, right ones are left alone."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts import add
from gateway.config_policies import Policy
from gateway.config_routing import Recalibration, Routing
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.router.drift import watch_drift
from gateway.jobs.router.recalibrate import recalibrate_artifacts
from gateway.jobs.runner import Context
from gateway.labels.queries import label_row, write_labels
from gateway.promising import promise_maker
from gateway.recalibration import open_stored
from gateway.routing.artifacts.change import Room, assign, roll_back
from gateway.routing.artifacts.queries import StoredArtifact, artifact_rows, assignment_rows, drift_rows
from gateway.scorers import bundled_version
from gateway.settings import read_settings
from gateway.verdicts import Label
from router_models.router import Router
from tests.builders import catalog, model
from tests.routed_traffic import Request, variant, written
from tests.scored_prompts import DAY, START, TIER, Truth, as_predicted, labelled, much_worse, never

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


@pytest.fixture(scope="module")
def bundled() -> Router:
    return Router.load()


def with_rules(context: Context, **rules: Any) -> Context:
    return replace(context, catalog=replace(context.catalog, routing=Routing(recalibration=Recalibration(**rules))))


def priced(context: Context, min_quality: float) -> Context:
    """With a model in each tier and a policy that promises this much."""
    prices = {"economy": (0.1, 0.4), "standard": (0.5, 2), "premium": (3, 15)}
    models = [
        model(f"{tier}-model", tier, price={"input": into, "output": out}) for tier, (into, out) in prices.items()
    ]
    return replace(context, catalog=catalog(*models, policies={"default": {"min_quality": min_quality}}))


def made_by_the_job(database: Database) -> list[StoredArtifact]:
    with snapshot(database) as connection:
        return [each for each in artifact_rows(connection) if each.source == "recalibration"]


def test_probabilities_that_are_wrong_are_put_right_and_the_artifact_is_kept(context: Context, bundled: Router) -> None:
    written(context.database, labelled(bundled, much_worse))
    said = recalibrate_artifacts(context)
    (made,) = made_by_the_job(context.database)
    assert said is not None
    assert said.startswith(f"default: {made.version} is kept: better on labels held out: calibration error 0.")
    assert (made.base, made.made_by) == (bundled_version(), "job recalibrate")
    checked = made.card["held_out"]
    assert checked["error_after"] < checked["error_before"] / 2
    assert checked["gain_low"] > 0
    assert checked["labels"] > 200
    assert made.card["recalibrated"]["from"] == bundled_version()
    before = bundled.score_prompt("Name the capital of Peru").quality["economy"].p
    after = open_stored(context.database, made.version).score_prompt("Name the capital of Peru").quality["economy"].p
    assert after < 0.75 * before
    with snapshot(context.database) as connection:
        assert assignment_rows(connection) == {}, "it is kept and not used"


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_that_come_true_are_left_alone(context: Context, bundled: Router, seed: int) -> None:
    """Chance alone makes one split in a hundred look better, so the ids, which it goes by, are drawn with a seed."""
    written(context.database, labelled(bundled, as_predicted, seed=seed), seed=seed)
    assert "not better on" in str(recalibrate_artifacts(context))
    assert made_by_the_job(context.database) == []


def test_it_is_proposed_as_challenger_where_that_is_asked_for_and_watched_by_its_own_reference(
    context: Context, clock: Clock, bundled: Router
) -> None:
    written(context.database, labelled(bundled, much_worse))
    said = str(recalibrate_artifacts(with_rules(context, do="propose", share=0.2)))
    (made,) = made_by_the_job(context.database)
    assert f"default: {made.version} is the challenger for 20% of the requests" in said
    with snapshot(context.database) as connection:
        now = assignment_rows(connection)["default"]
    assert (now.champion, now.challenger, now.share) == ("bundled", made.version, 0.2)
    (alert,) = list_alerts(context.database)["alerts"]
    assert (alert["kind"], alert["ended_at"] is not None) == ("router_change", True)
    with transaction(context.database) as connection:
        assign(connection, "default", made.version, None, 0.1, "tester", clock.now, "a test", ROOM)
    same = labelled(open_stored(context.database, made.version), as_predicted, 600, 7, START + 100)
    written(context.database, [replace(each, score=None) for each in same])
    clock.now = START + DAY / 2
    assert watch_drift(context) == "default: as it was"
    with snapshot(context.database) as connection:
        assert "reference" in {row["measure"] for row in drift_rows(connection, 50)}


def test_it_is_only_kept_while_there_is_a_challenger(context: Context, bundled: Router, tmp_path: Path) -> None:
    other = add(context.database, variant(tmp_path, "other"), "other", "tester", START)["version"]
    with transaction(context.database) as connection:
        assign(connection, "default", "bundled", other, 0.1, "tester", START - 20 * DAY, "a test", ROOM)
    written(context.database, labelled(bundled, much_worse))
    assert "not proposed as there is a challenger" in str(recalibrate_artifacts(with_rules(context, do="propose")))
    assert len(made_by_the_job(context.database)) == 1


def judged(database: Database, ids: list[str], requests: list[Request], tier: str, truth: Truth, seed: int = 1) -> None:
    """Labels for the answers that another tier would have given to the same requests."""
    drawn, place = random.Random(seed), TIER.index(tier)
    rows = []
    for name, each in zip(ids, requests, strict=True):
        label = Label(f"model of {tier}", tier, float(drawn.random() < truth(each.predicted[place])))
        rows.append(label_row(name, moment(each.at), "default", "default", label, "judge", "", each.at + 1))
    with transaction(database) as connection:
        write_labels(connection, rows)


def of_economy(router: Router, truth: Truth) -> list[Request]:
    drawn, requests = random.Random(9), labelled(router, truth, 600)
    return [replace(each, tier="economy", score=float(drawn.random() < truth(each.predicted[0]))) for each in requests]


def test_comparing_two_of_three_tiers_does_not_take_the_promise_away(context: Context, bundled: Router) -> None:
    requests = of_economy(bundled, much_worse)
    judged(context.database, written(context.database, requests), requests, "premium", as_predicted)
    said = str(recalibrate_artifacts(with_rules(priced(context, 0.8), do="propose")))
    (made,) = made_by_the_job(context.database)
    assert "is the challenger for 10% of the requests" in said
    assert re.search(r"promise of 0\.8 of the best quality: \d+% saved to \d+% saved", said)
    assert made.card["calibration_sample"]["drawn"].startswith(f"that of {bundled.version}")
    own = open_stored(context.database, made.version)
    prices = (("economy", 1e5, 4e5), ("standard", 5e5, 2e6), ("premium", 3e6, 15e6))
    table = promise_maker(own)(own.version, prices, 0.95)
    assert table is not None
    assert table.worth_for(0.8) < inf


@pytest.mark.parametrize("floor", [0.8, 0.99])
def test_what_could_keep_the_promise_by_little_but_the_best_tier_is_not_proposed(
    context: Context, bundled: Router, floor: float
) -> None:
    """All tiers are labelled, and economy and standard are never right."""
    requests = of_economy(bundled, never)
    ids = written(context.database, requests)
    for tier, truth in (("standard", never), ("premium", as_predicted)):
        judged(context.database, ids, requests, tier, truth)
    said = str(recalibrate_artifacts(with_rules(priced(context, floor), do="propose")))
    (made,) = made_by_the_job(context.database)
    assert f"{made.version} is kept, and not proposed as it promises less" in said
    saved = re.search(r"best quality: (\d+)% saved to (\d+)% saved$", said)
    assert saved is not None
    assert int(saved[2]) < int(saved[1]) / 2
    with snapshot(context.database) as connection:
        assert assignment_rows(connection) == {}


def test_after_a_recalibration_was_taken_back_the_next_ones_are_only_kept_for_a_while(
    context: Context, clock: Clock, bundled: Router
) -> None:
    rules = with_rules(context, do="propose", keep=1, days=20)
    said = []
    for number in range(4):
        clock.now = START + number * 8 * DAY
        written(context.database, labelled(bundled, much_worse, 600, number, clock.now - DAY))
        said.append(str(recalibrate_artifacts(rules)))
        if number == 0:
            with transaction(context.database) as connection:
                roll_back(connection, "default", "job challengers", clock.now + 1, "it was worse")
    wait = "not proposed as a recalibration of " + bundled_version() + " was taken back within 20 days"
    assert [("is the challenger" in each, wait in each) for each in said] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]


def test_an_artifact_that_cannot_be_proposed_for_lack_of_room_is_kept(
    context: Context, bundled: Router, tmp_path: Path
) -> None:
    names = ("one", "two", "three", "four")
    contents = [variant(tmp_path, name, 0.1 * place) for place, name in enumerate(names, start=1)]
    others = [add(context.database, content, "a file", "tester", START)["version"] for content in contents]
    policies = {**context.catalog.policies, **dict.fromkeys(names, Policy())}
    full = replace(context, catalog=replace(context.catalog, policies=policies))
    for name, version in zip(names, others, strict=True):
        with transaction(context.database) as connection:
            assign(connection, name, version, None, 0.1, "tester", START, "a test", Room(4, full.catalog.policies))
    written(context.database, labelled(bundled, much_worse))
    said = str(recalibrate_artifacts(with_rules(full, do="propose")))
    assert "not proposed: Gateways hold 4 artifacts" in said
    assert len(made_by_the_job(context.database)) == 1


def test_few_labels_change_nothing_and_the_same_labels_do_not_count_twice(
    context: Context, clock: Clock, bundled: Router
) -> None:
    requests = labelled(bundled, much_worse)
    written(context.database, requests[:299])
    assert recalibrate_artifacts(context) is None
    written(context.database, requests[299:])
    assert recalibrate_artifacts(context) is not None
    clock.now += DAY
    assert recalibrate_artifacts(context) is None, "nothing is new"
    assert len(made_by_the_job(context.database)) == 1
    assert recalibrate_artifacts(with_rules(context, do="nothing")) is None


def test_only_so_many_that_nothing_uses_are_kept(context: Context, clock: Clock, bundled: Router) -> None:
    rules = with_rules(context, keep=1)
    for number in range(3):
        clock.now = START + number * 20 * DAY
        written(context.database, labelled(bundled, much_worse, 600, number, clock.now - DAY))
        recalibrate_artifacts(rules)
    assert [each.made_at.timestamp() for each in made_by_the_job(context.database)] == [clock.now]


def test_labels_of_feedback_and_requests_without_kept_features_do_not_count(context: Context, bundled: Router) -> None:
    requests = labelled(bundled, much_worse, 600)
    written(context.database, requests, "feedback")
    assert recalibrate_artifacts(context) is None
    written(context.database, [replace(each, features=None, fingerprint=None) for each in requests])
    assert recalibrate_artifacts(context) == "default: 0 of 300 labels"
    written(context.database, [replace(each, fingerprint="another release") for each in requests])
    assert recalibrate_artifacts(context) == "default: 0 of 300 labels"
