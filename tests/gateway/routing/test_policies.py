"""Policies that are changed at run time, on both databases: what counts, what is refused, what is written down."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from gateway.catalog import Catalog
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import InvalidValue, NotFound
from gateway.routing.policies.change import reset_policy, set_policy
from gateway.routing.policies.describe import policies_now
from gateway.routing.policies.live import LivePolicies
from gateway.routing.policies.queries import Override, insert_override, read_overrides
from tests.builders import catalog, model
from tests.gateway.keys.test_key_changes import at_once

CATALOG = catalog(model("m"), policies={"batch": {"min_quality": 0.6, "fallbacks": False}})


def change(database: Database, name: str, at: float = 100.0, **settings: Any) -> None:
    set_policy(database, CATALOG, name, settings, actor="test", now=at)


def test_what_was_set_takes_the_place_of_configured_keys_and_a_reset_gives_them_back(database: Database) -> None:
    live = LivePolicies(CATALOG, database)
    change(database, "batch", min_quality=0.8, max_cost_usd="0.01", sla={"total_seconds": 9})
    assert live.of("batch").min_quality == 0.6, "nothing is read in between"
    live.renew()
    policy = live.of("batch")
    assert (policy.min_quality, policy.fallbacks) == (0.8, False)
    assert policy.sla is not None
    assert policy.sla.total_seconds == 9
    assert live.in_force("batch").terms.max_cost == 10**10
    assert live.of("default") == CATALOG.policies["default"]
    change(database, "batch", local_only=True)
    live.renew()
    assert (live.of("batch").min_quality, live.in_force("batch").terms.local_only) == (0.8, True)
    change(database, "batch", min_quality=None, sla=None)
    live.renew()
    assert (live.of("batch").min_quality, live.of("batch").sla, live.of("batch").local_only) == (0.6, None, True)
    assert reset_policy(database, CATALOG, "batch", actor="test", now=101.0) == CATALOG.policies["batch"]
    live.renew()
    assert live.all() == CATALOG.policies
    with pytest.raises(NotFound, match="Nothing of the policy 'batch'"):
        reset_policy(database, CATALOG, "batch", actor="test", now=102.0)


def test_keys_that_are_not_named_stay_and_the_last_one_reset_leaves_nothing(database: Database) -> None:
    change(database, "batch", objective="latency")
    made = set_policy(database, CATALOG, "batch", {"min_quality": 0.5}, actor="test", now=101.0)
    assert (made.objective, made.min_quality) == ("latency", 0.5)
    described = {each["name"]: each for each in policies_now(CATALOG, database)}
    assert described["batch"]["set"] == {"objective": "latency", "min_quality": 0.5}
    assert (described["batch"]["set_by"], described["default"]["set"]) == ("test", None)
    change(database, "batch", objective=None, min_quality=None)
    change(database, "default", objective=None)
    with snapshot(database) as connection:
        assert read_overrides(connection) == []
    newest = audit_page(database).entries[0]
    assert (newest["object"], newest["after"]) == ("batch", None), "nothing was set of the other one"


def test_what_cannot_be_is_refused_with_the_key_and_changes_nothing(database: Database) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"min_quality": 2}, "min_quality: .* got 2"),
        ({"min_qualty": 0.5}, "unknown key 'min_qualty'; did you mean 'min_quality'"),
        ({"sla": {"total": 1}}, "unknown key 'sla.total'"),
        ({"objective": "speed"}, "objective: .* got 'speed'"),
        ({"regions": []}, "regions: must have at least 1"),
        ({"regions": "eu"}, "regions: must be a list, got 'eu'"),
        ({"min_quality": True}, "min_quality: must be a number.* got True"),
        ({"min_quality": "0.5"}, "min_quality: must be a number.* got '0.5'"),
        ({"confidence": 0.5}, "confidence: nothing can be promised .*give more than 0.5"),
        ({"min_qualty": None}, "unknown key 'min_qualty'"),
        ({}, "give at least one key"),
    ]
    for settings, message in wrong:
        with pytest.raises(InvalidValue, match=message):
            set_policy(database, CATALOG, "batch", settings, actor="test", now=1.0)
    with pytest.raises(NotFound, match="no policy 'nightly'"):
        change(database, "nightly", min_quality=0.5)
    with snapshot(database) as connection:
        assert read_overrides(connection) == []
    assert audit_page(database).entries == ()


def test_a_sample_with_a_judge_or_tier_that_does_not_exist_is_refused(database: Database) -> None:
    rule = {"share": 0.1, "budget_usd": "5"}
    sampling = catalog(model("m"), model("large", "premium"), policies={"default": {"shadow": rule}})

    def put(**settings: Any) -> Any:
        return set_policy(database, sampling, "default", {"shadow": {**rule, **settings}}, actor="test", now=1.0)

    with pytest.raises(InvalidValue, match=r"shadow\.judge: model 'no-such-model' is not configured\. Known: large, m"):
        put(compare="judge", judge="no-such-model")
    with pytest.raises(InvalidValue, match=r"no model is configured in the tier 'deep'\. There is: economy, premium"):
        put(tier="deep")
    with snapshot(database) as connection:
        assert read_overrides(connection) == []
    assert put(compare="judge", judge="large").shadow.judge == "large"
    assert put(share=0).shadow.share == 0, "which samples nothing"
    again = set_policy(database, sampling, "default", {"shadow": None}, actor="test", now=2.0)
    assert again.shadow == sampling.policies["default"].shadow


def test_every_change_is_in_the_audit_log_and_ended_rows_stay(database: Database) -> None:
    change(database, "default", min_quality=0.7)
    change(database, "default", at=200.0, min_quality=0.9)
    reset_policy(database, CATALOG, "default", actor="somebody", now=300.0)
    log = [(row["action"], row["object"], row["before"], row["after"]) for row in audit_page(database).entries]
    assert log == [
        ("policies.reset", "default", {"min_quality": 0.9}, None),
        ("policies.set", "default", {"min_quality": 0.7}, {"min_quality": 0.9}),
        ("policies.set", "default", None, {"min_quality": 0.7}),
    ]


def test_of_many_changes_at_once_one_is_in_force(database: Database) -> None:
    def one(number: int) -> None:
        set_policy(database, CATALOG, "batch", {"min_quality": number / 10}, actor="test", now=float(number))

    at_once(*(partial(one, number) for number in range(6)))
    with snapshot(database) as connection:
        assert len(read_overrides(connection)) == 1
    assert len(audit_page(database).entries) == 6


def test_keys_that_do_not_fit_any_more_are_left_out_one_by_one_with_a_warning(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    old = {"no_such_key": 1, "confidence": 0.5, "min_quality": 0.9}
    with transaction(database) as connection:
        insert_override(connection, Override("batch", old, 1.0, "older version"))
        insert_override(connection, Override("gone", {"min_quality": 0.1}, 1.0, "older configuration"))
    live = LivePolicies(CATALOG, database)
    live.renew()
    assert live.of("batch") == CATALOG.policies["batch"].model_copy(update={"min_quality": 0.9})
    assert live.of("default") == CATALOG.policies["default"]
    for word in ("no_such_key", "confidence was set at run time and is left out", "'gone'"):
        assert word in caplog.text
    [shown] = [each for each in policies_now(CATALOG, database) if each["name"] == "batch"]
    assert (shown["set"], set(shown["left_out"])) == (old, {"no_such_key", "confidence"})
    change(database, "batch", no_such_key=None, objective="latency")
    with snapshot(database) as connection:
        [after] = read_overrides(connection, "batch")
    assert after.settings == {"confidence": 0.5, "min_quality": 0.9, "objective": "latency"}


SHADOW = {"share": 0.1, "budget_usd": "5"}


def test_another_budget_of_samples_in_the_configuration_does_not_let_prompts_out(database: Database) -> None:
    before = catalog(model("m"), policies={"default": {"shadow": SHADOW}})
    settings = {"shadow": {**SHADOW, "share": 0.2}, "local_only": True}
    set_policy(database, before, "default", settings, actor="test", now=1.0)
    after = catalog(model("m"), policies={"default": {"shadow": {**SHADOW, "budget_usd": "10"}}})
    live = LivePolicies(after, database)
    live.renew()
    policy = live.of("default")
    assert policy.local_only
    assert policy.shadow is not None
    assert policy.shadow.share == 0.1
    set_policy(database, after, "default", {"min_quality": 0.5}, actor="test", now=2.0)
    live.renew()
    assert live.of("default").local_only


def test_at_run_time_places_only_become_stricter_than_configured(database: Database) -> None:
    strict = catalog(model("m"), policies={"default": {"local_only": True, "regions": ["eu", "us"]}})
    for settings, message in (
        ({"local_only": False}, "local_only: it is true in penstock.yaml"),
        ({"regions": ["eu", "asia"]}, "regions: penstock.yaml allows eu, us"),
    ):
        with pytest.raises(InvalidValue, match=message):
            set_policy(database, strict, "default", settings, actor="test", now=1.0)
    assert set_policy(database, strict, "default", {"regions": ["eu"]}, actor="test", now=2.0).regions == ("eu",)
    live = LivePolicies(strict, database)
    live.renew()
    assert live.in_force("default").terms.regions == {"eu"}


@pytest.mark.parametrize(("configured", "left"), [(["eu", "asia"], {"eu"}), (["asia"], set())])
def test_places_of_both_sides_count_when_the_configuration_moves_away(
    database: Database, configured: list[str], left: set[str]
) -> None:
    set_policy(database, catalog(model("m")), "default", {"regions": ["eu", "us"]}, actor="test", now=1.0)
    moved = catalog(model("m"), policies={"default": {"regions": configured}})
    live = LivePolicies(moved, database)
    live.renew()
    assert live.in_force("default").terms.regions == left, "an empty set lets nobody answer"
    [shown] = policies_now(moved, database)
    assert f"In force: {', '.join(left) or 'no region'}." in shown["left_out"]["regions"]


async def test_a_database_that_is_down_leaves_the_known_policies(sqlite_url: str, tmp_path: Any) -> None:
    from gateway.db.connect import connect

    database = connect(sqlite_url)
    change(database, "batch", min_quality=0.75)
    live = LivePolicies(CATALOG, database)
    await live.open()
    database.close()
    assert live.of("batch").min_quality == 0.75
    await live.close()


def test_the_default_policy_can_be_changed_though_the_file_does_not_name_it(database: Database) -> None:
    plain: Catalog = catalog(model("m"))
    set_policy(database, plain, "default", {"min_quality": 0.4}, actor="test", now=1.0)
    live = LivePolicies(plain, database)
    live.renew()
    assert live.of("default").min_quality == 0.4
