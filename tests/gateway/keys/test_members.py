"""Members and their roles: who may do what, tokens that are shown once, and nobody who hands out more than their own."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from gateway.catalog import hash_key
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.errors import Conflict, Forbidden, InvalidValue, NotFound
from gateway.keys.members.change import NewMember, add_member, end_member, member_of
from gateway.keys.members.queries import list_members
from gateway.keys.roles import ADMIN_KEY, PERMISSIONS, ROLES, WHOLE, Action, Actor, Role, check_action, check_tenant
from tests.builders import catalog, model
from tests.gateway.keys.test_key_changes import at_once

CATALOG = catalog(model("m"), tenants=[{"name": "acme"}, {"name": "other"}])


def added(
    database: Database, name: str, role: Role = "viewer", tenant: str | None = None, by: Actor = ADMIN_KEY
) -> NewMember:
    return add_member(database, CATALOG, name, role, tenant, by, by.title)


def test_every_action_has_roles_and_owners_and_admins_may_do_everything() -> None:
    assert set(PERMISSIONS) == set(get_args(Action))
    assert all({"owner", "admin"} <= roles <= set(ROLES) for roles in PERMISSIONS.values())
    assert set(PERMISSIONS) >= WHOLE


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "finance",
            {"budgets.change", "audit.read", "ledger.verify"},
            {"keys.change", "members.read", "members.change"},
        ),
        ("developer", {"keys.change", "requests.read"}, {"budgets.change", "members.read", "audit.read"}),
        ("viewer", {"usage.read", "budgets.read"}, {"keys.change", "budgets.change", "requests.read", "audit.read"}),
    ],
)
def test_a_role_may_do_its_work_and_a_refusal_says_who_may(role: Role, may: set[Action], may_not: set[Action]) -> None:
    actor = Actor("ann", role)
    for action in may:
        check_action(actor, action)
    for action in may_not:
        with pytest.raises(Forbidden) as error:
            check_action(actor, action)
        assert f"'ann' has the role {role!r}, which may not do {action!r}" in error.value.message
        assert all(each in error.value.message for each in PERMISSIONS[action])


def test_what_shows_the_whole_installation_is_not_for_members_of_one_tenant() -> None:
    for action in WHOLE:
        check_action(Actor("ann", "owner"), action)
        with pytest.raises(Forbidden, match="shows the whole installation, and 'ann' belongs to the tenant 'acme'"):
            check_action(Actor("ann", "owner", "acme"), action)


def test_a_member_of_one_tenant_has_nothing_to_do_with_others() -> None:
    check_tenant(Actor("ann", "owner", "acme"), "acme")
    check_tenant(Actor("ann", "viewer"), "acme")
    for tenant in ("other", None):
        with pytest.raises(Forbidden, match="belongs to the tenant 'acme'"):
            check_tenant(Actor("ann", "owner", "acme"), tenant)


def test_a_token_is_kept_as_a_hash_and_stops_with_its_member(database: Database) -> None:
    made = added(database, "Ann Ünicode/:", "finance", "acme")
    assert made.token not in repr(made)
    assert member_of(database, made.token, time.time()) == Actor("Ann Ünicode/:", "finance", "acme")
    assert member_of(database, made.token + "x", time.time()) is None
    assert end_member(database, "Ann Ünicode/:", ADMIN_KEY, "test").id == made.member.id
    assert member_of(database, made.token, time.time()) is None
    with pytest.raises(NotFound):
        end_member(database, made.member.id, ADMIN_KEY, "test")
    entries = audit_page(database).entries
    assert [(entry["action"], entry["object"]) for entry in entries] == [
        ("members.remove", made.member.id),
        ("members.add", made.member.id),
    ]
    assert made.token not in str(entries)
    assert hash_key(made.token) not in str(entries)


def test_the_last_use_is_written_once_a_minute(database: Database) -> None:
    now = float(round(time.time()))
    made = added(database, "ann")
    for after, seen in ((0, 0), (59, 0), (61, 61)):
        assert member_of(database, made.token, now + after) is not None
        assert list_members(database)[0].last_used_at == now + seen


def test_a_name_is_free_again_when_its_member_is_removed(database: Database) -> None:
    added(database, "ann", tenant="acme")
    with pytest.raises(Conflict, match="a member named 'ann' already"):
        added(database, "ann", tenant="acme")
    end_member(database, "ann", ADMIN_KEY, "test")
    results = at_once(*[lambda: added(database, "ann")] * 3)
    assert sum(isinstance(each, Conflict) for each in results) == 2
    assert [member.tenant for member in list_members(database, "acme")] == ["acme"]


def test_a_name_that_another_tenants_member_has_is_free_and_means_one_member_only(database: Database) -> None:
    mine, other, of_all = (added(database, "ann", tenant=tenant).member for tenant in ("acme", "other", None))
    assert Actor("ann", "owner", "acme").title != Actor("ann", "owner", "other").title != Actor("ann", "owner").title
    with pytest.raises(Conflict, match="3 members have the name 'ann'; use an id: ") as error:
        end_member(database, "ann", ADMIN_KEY, "test")
    assert all(each.id in error.value.message for each in (mine, other, of_all))
    assert end_member(database, "ann", Actor("bob", "owner", "acme"), "test").id == mine.id
    with pytest.raises(NotFound):
        end_member(database, "ann", Actor("bob", "owner", "acme"), "test")
    assert end_member(database, other.id, ADMIN_KEY, "test").id == other.id
    assert end_member(database, "ann", ADMIN_KEY, "test").id == of_all.id


def test_nobody_adds_or_ends_more_than_their_own(database: Database) -> None:
    boss = added(database, "boss", "owner").member
    abroad = added(database, "abroad", "viewer", "other").member
    admin, mine = Actor("ann", "admin"), Actor("bob", "owner", "acme")
    with pytest.raises(Forbidden, match="only an owner may add or end an owner"):
        added(database, "eve", "owner", by=admin)
    with pytest.raises(Forbidden, match="only an owner"):
        end_member(database, boss.id, admin, "test")
    for tenant in (None, "other"):
        with pytest.raises(Forbidden, match="belongs to the tenant 'acme'"):
            added(database, "eve", "viewer", tenant, by=mine)
    for member in (boss, abroad):
        with pytest.raises(NotFound):
            end_member(database, member.id, mine, "test")
    assert added(database, "eve", "owner", "acme", by=mine).member.tenant == "acme"
    assert added(database, "dan", "finance", by=admin).member.role == "finance"


@pytest.mark.parametrize(
    ("name", "role", "tenant", "words"),
    [
        ("", "viewer", None, "name: a name needs letters"),
        ("a\0b", "viewer", None, "invisible"),
        ("ann", "king", None, "role 'king' does not exist. Known: owner, admin, finance, developer, viewer."),
        ("ann", "viewer", "nobody", "tenant 'nobody' is not declared"),
    ],
)
def test_a_member_that_cannot_be_is_refused(
    database: Database, name: str, role: Role, tenant: str | None, words: str
) -> None:
    with pytest.raises(InvalidValue) as error:
        added(database, name, role, tenant)
    assert words in error.value.message
    assert list_members(database) == []
