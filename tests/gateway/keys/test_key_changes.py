"""Making, rotating and revoking keys on both databases: names, races, hostile input, and what the audit log keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.catalog import hash_key
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import Conflict, InvalidValue, NotFound, PenstockError
from gateway.keys.change import KeyOrder, check_order, create_key, revoke_key, rotate_key
from gateway.keys.queries import find_secret, list_keys, read_secrets
from gateway.keys.rules.queries import read_changes
from tests.builders import catalog, model

CATALOG = catalog(
    model("m"),
    tenants=[{"name": "acme", "projects": [{"name": "web"}]}],
    keys=[{"key": "sk-12345678", "name": "declared", "tenant": "acme"}],
)


def works(database: Database, secret: str) -> bool:
    with snapshot(database) as connection:
        found = find_secret(connection, hash_key(secret))
    return found is not None and found.works(time.time())


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each job returned or raised, all of them started together."""
    results: list[Any] = [None] * len(jobs)
    ready = threading.Barrier(len(jobs))

    def run(place: int) -> None:
        ready.wait()
        try:
            results[place] = jobs[place]()
        except PenstockError as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_name_is_used_once_per_tenant_until_its_key_is_revoked(database: Database) -> None:
    first = create_key(database, KeyOrder("app", "acme"), "test")
    create_key(database, KeyOrder("app", "default"), "test")
    with pytest.raises(Conflict, match="already has a key named 'app'"):
        create_key(database, KeyOrder("app", "acme", budgets={"day": 1}), "test")
    with snapshot(database) as connection:
        assert read_changes(connection, time.time()).rules == ()
    revoke_key(database, first.id, "test")
    assert create_key(database, KeyOrder("app", "acme"), "test").id != first.id


def test_of_many_who_want_one_name_at_once_one_gets_it(database: Database) -> None:
    results = at_once(*[lambda: create_key(database, KeyOrder("app"), "test")] * 4)
    assert sum(isinstance(result, Conflict) for result in results) == 3
    assert len(list_keys(database)) == 1


def test_rotations_at_once_leave_one_key_with_one_secret_that_goes_on(database: Database) -> None:
    made = create_key(database, KeyOrder("app"), "test")
    results = at_once(*[lambda: rotate_key(database, "app", 3600, "test")] * 4)
    assert {result.id for result in results} == {made.id}
    assert all(works(database, each.secret) for each in (made, *results))
    with snapshot(database) as connection:
        ends = [secret.ends_at for secret in read_secrets(connection)]
    assert (len(ends), ends.count(None)) == (5, 1)


def test_a_rotation_and_a_revocation_at_once_never_leave_a_working_secret(database: Database) -> None:
    for number in range(5):
        made = create_key(database, KeyOrder(f"app-{number}"), "test")
        name = made.name
        rotated, revoked = at_once(
            lambda name=name: rotate_key(database, name, 3600, "test"),
            lambda name=name: revoke_key(database, name, "test"),
        )
        assert revoked.id == made.id
        assert isinstance(rotated, NotFound) or not works(database, rotated.secret)
        assert not works(database, made.secret)


def test_an_overlap_never_gives_an_ending_secret_more_time(database: Database) -> None:
    now = time.time()
    first = create_key(database, KeyOrder("app"), "test", now)
    rotate_key(database, "app", 10, "test", now=now)
    rotate_key(database, "app", 3600, "test", now=now)
    with snapshot(database) as connection:
        found = find_secret(connection, hash_key(first.secret))
    assert found is not None
    assert found.ends_at == pytest.approx(now + 10, abs=0.001)


def test_a_revoked_or_expired_key_cannot_be_rotated_and_a_revoked_one_not_revoked_again(database: Database) -> None:
    create_key(database, KeyOrder("old", expires_at=time.time() - 1), "test")
    made = create_key(database, KeyOrder("app"), "test")
    revoke_key(database, made.id, "test")
    for name in ("old", "app", made.id, "nobody", "x' OR 1=1 --"):
        with pytest.raises(NotFound, match="No valid key"):
            rotate_key(database, name, 0, "test")
    with pytest.raises(NotFound):
        revoke_key(database, "app", "test")
    assert revoke_key(database, "old", "test").name == "old"


def test_a_name_that_two_tenants_use_needs_a_tenant_or_an_id(database: Database) -> None:
    mine = create_key(database, KeyOrder("app", "acme"), "test")
    create_key(database, KeyOrder("app", "default"), "test")
    with pytest.raises(Conflict, match=r"2 valid keys are named 'app'.*Give an id"):
        rotate_key(database, "app", 0, "test")
    assert rotate_key(database, "app", 0, "test", tenant="acme").id == mine.id
    with pytest.raises(NotFound):
        revoke_key(database, mine.id, "test", tenant="default")


def test_a_key_named_like_the_id_of_another_one_is_not_taken_for_it(database: Database) -> None:
    mine = create_key(database, KeyOrder("app"), "test")
    create_key(database, KeyOrder(mine.id), "test")
    assert revoke_key(database, mine.id, "test").name == "app"


@pytest.mark.parametrize("overlap", [-1.0, float("nan")])
def test_an_overlap_is_not_negative(database: Database, overlap: float) -> None:
    create_key(database, KeyOrder("app"), "test")
    with pytest.raises(InvalidValue, match="overlap"):
        rotate_key(database, "app", overlap, "test")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (KeyOrder("app", "nobody"), "tenant 'nobody' is not declared in the configuration. Known: acme, default."),
        (KeyOrder("app", "acme", "shop"), "tenant 'acme' has no project 'shop'. Known: web."),
        (KeyOrder("app", "default", "web"), "tenant 'default' has no project 'web'. Known: none."),
        (KeyOrder("app", models=frozenset({"gtp"})), "model 'gtp' is not configured"),
        (KeyOrder("app", tiers=frozenset({"luxury"})), "tier 'luxury' does not exist"),
        (KeyOrder(""), "a name needs letters"),
        (KeyOrder(" app"), "without spaces around"),
        (KeyOrder("a\0b"), "invisible"),
        (KeyOrder("a\nb"), "invisible"),
        (KeyOrder("\ud800"), "invisible"),
        (KeyOrder("x" * 101), "at most 100 characters, not 101"),
    ],
)
def test_what_a_key_cannot_be_is_refused(order: KeyOrder, words: str) -> None:
    with pytest.raises(InvalidValue) as error:
        check_order(order, CATALOG)
    assert words in error.value.message


def test_a_declared_name_is_taken() -> None:
    with pytest.raises(Conflict, match="named 'declared' in the configuration"):
        check_order(KeyOrder("declared", "acme"), CATALOG)
    check_order(KeyOrder("declared", "default"), CATALOG)


@pytest.mark.parametrize("name", ["日本語/キー:1", "a/b:c'd\"e", "Ünïcödé 🔑", "x" * 100, "tenant:acme", "../../etc"])
def test_a_hostile_name_is_kept_as_it_is(database: Database, name: str) -> None:
    order = KeyOrder(name, "acme", "web", budgets={"day": 5})
    check_order(order, CATALOG)
    made = create_key(database, order, "test")
    [row] = list_keys(database, "acme")
    assert (row.name, row.project, row.id) == (name, "web", made.id)
    assert rotate_key(database, name, 0, "test").id == made.id


def test_every_change_is_in_the_audit_log_and_no_secret_is(database: Database) -> None:
    made = create_key(database, KeyOrder("app", "acme", budgets={"day": 10**12}, limits={"parallel": 2}), "ann")
    rotated = rotate_key(database, "app", 60, "bob")
    revoke_key(database, "app", "eve")
    with pytest.raises(NotFound):
        revoke_key(database, "app", "eve")
    entries = audit_page(database).entries
    assert [(entry["actor"], entry["action"], entry["object"], entry["tenant"]) for entry in entries] == [
        ("eve", "keys.revoke", made.id, "acme"),
        ("bob", "keys.rotate", made.id, "acme"),
        ("ann", "keys.create", made.id, "acme"),
    ]
    created = entries[2]["after"]
    assert created["rules"] == [{"limit_usd": "1", "period": "day", "hard": True}, {"parallel": 2}]
    for secret in (made.secret, rotated.secret):
        assert secret not in str(entries)
        assert hash_key(secret) not in str(entries)
