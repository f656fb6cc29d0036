"""The key ring: who is asking, with everything its owners may take, and what happens when that changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.callers import Allowance, Budget, RateLimit
from gateway.catalog import hash_key
from gateway.catalog_owners import declared_id
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.errors import ConfigError, InvalidKey, MissingKey, RevokedKey, Unavailable, UnknownProject, UnknownTenant
from gateway.keys.authenticate import KeyRing
from gateway.keys.change import KeyOrder, create_key, revoke_key, rotate_key
from gateway.keys.queries import list_keys
from gateway.keys.rules.change import raise_budget, remove_budget, set_budget, set_limit
from gateway.keys.scopes import Owner
from gateway.keys.secrets import make_secret
from tests.builders import catalog, model

USD = 10**12
CATALOG = catalog(
    model("m"),
    keys=[
        {"key": "sk-declared-key", "name": "declared", "tenant": "acme", "models": ["auto"]},
        {"key": "sk-web-key-0123", "name": "web-app", "tenant": "acme", "project": "web"},
    ],
    tenants=[
        {
            "name": "acme",
            "budget": {"limit_usd": 3, "period": "day"},
            "projects": [{"name": "web", "budget": {"limit_usd": 2}, "limits": {"tokens_per_day": 500}}],
            "users": {"each": {"limits": {"requests_per_minute": 5}}},
            "estimate": {"percentile": 0.9},
        }
    ],
)
ACME = Budget("tenant:acme", 3 * USD, "day")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = connect(f"sqlite:///{tmp_path / 'keys.db'}")
    migrate(opened)
    yield opened
    opened.close()


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


async def test_a_declared_key_is_its_caller_with_its_scope_and_its_tenants_budget(database: Database) -> None:
    caller = await KeyRing(CATALOG, database).authenticate(bearer("sk-declared-key"))
    assert (caller.key_name, caller.tenant, caller.models) == ("declared", "acme", frozenset({"auto"}))
    assert (caller.budgets, caller.project) == ((ACME,), None)
    assert caller.estimating.percentile == 0.9
    assert caller.named is not None
    assert caller.named.each_user == Allowance(limits=(RateLimit("user:acme/", "requests", 5),))


async def test_a_key_of_a_project_answers_to_key_project_and_tenant(database: Database) -> None:
    caller = await KeyRing(CATALOG, database).authenticate(bearer("sk-web-key-0123"))
    assert caller.project == "web"
    assert caller.budgets == (Budget("project:acme/web", 2 * USD, "month"), ACME)
    assert caller.limits == (RateLimit("project:acme/web", "tokens", 500, "day"),)


async def test_a_tenant_without_named_rules_has_callers_without_them(database: Database) -> None:
    plain = catalog(model("m"), keys=[{"key": "sk-12345678", "name": "app"}])
    assert (await KeyRing(plain, database).authenticate(bearer("sk-12345678"))).named is None


async def test_a_made_key_works_at_once_and_its_secret_is_nowhere_on_disk(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(CATALOG, database)
    await ring.refresh()
    order = KeyOrder(
        "app", "acme", "web", tiers=frozenset({"economy"}), budgets={"month": USD, "day": 5}, limits={"parallel": 4}
    )
    new = create_key(database, order, "test")
    caller = await ring.authenticate(bearer(new.secret))
    assert (caller.key_id, caller.tiers, caller.project) == (new.id, frozenset({"economy"}), "web")
    mine = (Budget(f"key:{new.id}", 5, "day"), Budget(f"key:{new.id}", USD, "month"))
    assert caller.budgets == (*mine, Budget("project:acme/web", 2 * USD, "month"), ACME)
    assert RateLimit(f"key:{new.id}", "parallel", 4) in caller.limits
    await ring.refresh()
    assert await ring.authenticate(bearer(new.secret)) == caller
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert new.secret.encode() not in stored
    assert hash_key(new.secret).encode() in stored
    assert new.secret not in repr(new)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "sk-declared-key"])
async def test_no_bearer_key_is_missing(database: Database, header: str | None) -> None:
    with pytest.raises(MissingKey):
        await KeyRing(CATALOG, database).authenticate(header)


async def test_an_unknown_key_is_asked_of_the_database_once_until_the_next_refresh(
    database: Database, tmp_path: Path
) -> None:
    ring = KeyRing(CATALOG, database)
    with pytest.raises(InvalidKey):
        await ring.authenticate(bearer("sk-guessed"))
    database.close()
    (tmp_path / "keys.db").unlink()
    with pytest.raises(InvalidKey):
        await ring.authenticate(bearer("sk-guessed"))
    with pytest.raises(Unavailable):
        await ring.authenticate(bearer("sk-another-guess"))


async def test_a_revoked_key_stops_at_the_next_refresh_and_says_so(database: Database) -> None:
    ring = KeyRing(CATALOG, database)
    new = create_key(database, KeyOrder("app"), "test")
    await ring.authenticate(bearer(new.secret))
    assert revoke_key(database, "app", "test").id == new.id
    await ring.refresh()
    with pytest.raises(RevokedKey, match="'app' has been revoked"):
        await ring.authenticate(bearer(new.secret))


async def test_both_secrets_of_a_rotated_key_are_one_caller_until_the_overlap_ends(database: Database) -> None:
    now = time.time()
    clock = [now]
    ring = KeyRing(CATALOG, database, clock=lambda: clock[0])
    old = create_key(database, KeyOrder("app", "acme", budgets={"month": 7}), "test")
    new = rotate_key(database, "app", 3600, "test", now=now)
    assert (new.id, new.secret == old.secret) == (old.id, False)
    await ring.refresh()
    first, second = [await ring.authenticate(bearer(each.secret)) for each in (old, new)]
    assert first is second
    assert Budget(f"key:{old.id}", 7, "month") in first.budgets
    clock[0] = now + 3601
    await ring.refresh()
    with pytest.raises(RevokedKey, match="replaced by a new one"):
        await ring.authenticate(bearer(old.secret))
    assert (await ring.authenticate(bearer(new.secret))).key_id == old.id


async def test_an_expired_key_says_so(database: Database) -> None:
    new = create_key(database, KeyOrder("app", expires_at=time.time() - 1), "test")
    with pytest.raises(RevokedKey, match="expired"):
        await KeyRing(CATALOG, database).authenticate(bearer(new.secret))


async def test_a_key_whose_tenant_or_project_is_gone_is_refused(database: Database) -> None:
    orphan = create_key(database, KeyOrder("orphan", "gone"), "test")
    stray = create_key(database, KeyOrder("stray", "acme", "gone"), "test")
    ring = KeyRing(CATALOG, database)
    with pytest.raises(UnknownTenant, match="'gone'"):
        await ring.authenticate(bearer(orphan.secret))
    with pytest.raises(UnknownProject, match=r"project 'gone', which the tenant 'acme'"):
        await ring.authenticate(bearer(stray.secret))


async def test_known_keys_go_on_working_while_the_database_is_away(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(CATALOG, database)
    new = create_key(database, KeyOrder("app"), "test")
    await ring.refresh()
    database.close()
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Unavailable):
        list_keys(database)
    with pytest.raises(Unavailable):
        await ring.refresh()
    assert (await ring.authenticate(bearer(new.secret))).key_id == new.id


async def test_a_key_made_since_keeps_its_budget_when_a_raise_ends_while_the_database_is_away(
    database: Database, tmp_path: Path
) -> None:
    now = float(round(time.time()))
    clock = [now]
    ring = KeyRing(CATALOG, database, clock=lambda: clock[0])
    await ring.refresh()
    new = create_key(database, KeyOrder("app", "acme", budgets={"week": 7}), "test", now)
    raise_budget(
        database, CATALOG, Owner("key", "acme", new.id, "app"), 5, "week",
        starts_at=now, ends_at=now + 10, reason="launch", actor="test", now=now,
    )  # fmt: skip
    assert Budget(f"key:{new.id}", 12, "week", raised=5) in (await ring.authenticate(bearer(new.secret))).budgets
    database.close()
    for path in tmp_path.iterdir():
        path.unlink()
    clock[0] = now + 10
    with pytest.raises(Unavailable):
        await ring.refresh()
    assert Budget(f"key:{new.id}", 7, "week") in (await ring.authenticate(bearer(new.secret))).budgets


async def test_nothing_is_built_again_while_nothing_changes(database: Database) -> None:
    ring = KeyRing(CATALOG, database)
    new = create_key(database, KeyOrder("app", "acme", budgets={"week": 7}), "test")
    await ring.refresh()
    first = await ring.authenticate(bearer(new.secret))
    await ring.refresh()  # which writes the last use
    await ring.refresh()
    assert await ring.authenticate(bearer(new.secret)) is first
    set_limit(database, Owner("tenant", "acme"), "parallel", 3, actor="test", now=time.time())
    await ring.refresh()
    assert await ring.authenticate(bearer(new.secret)) is not first


async def test_the_last_use_is_written_with_the_refresh(database: Database) -> None:
    new = create_key(database, KeyOrder("app"), "test")
    ring = KeyRing(CATALOG, database)
    assert list_keys(database)[0].last_used_at is None
    await ring.authenticate(bearer(new.secret))
    await ring.refresh()
    used = list_keys(database)[0].last_used_at
    assert used is not None
    assert abs(used - time.time()) < 60


async def test_rules_of_sql_win_over_the_configuration_and_give_way_again(database: Database) -> None:
    ring = KeyRing(CATALOG, database)
    await ring.refresh()
    tenant, now = Owner("tenant", "acme"), time.time()
    set_budget(database, tenant, 9 * USD, "day", hard=False, actor="test", now=now)
    set_limit(database, tenant, "requests_per_minute", 60, actor="test", now=now)
    assert (await ring.authenticate(bearer("sk-declared-key"))).budgets == (ACME,)
    await ring.refresh()
    caller = await ring.authenticate(bearer("sk-declared-key"))
    assert caller.budgets == (Budget("tenant:acme", 9 * USD, "day", hard=False),)
    assert caller.limits == (RateLimit("tenant:acme", "requests", 60),)
    remove_budget(database, tenant, "day", actor="test", now=now)
    await ring.refresh()
    assert (await ring.authenticate(bearer("sk-declared-key"))).budgets == (ACME,)


async def test_a_raise_counts_from_its_start_to_its_end_even_while_the_database_is_away(
    database: Database, tmp_path: Path
) -> None:
    now = float(round(time.time()))
    clock = [now]
    ring = KeyRing(CATALOG, database, clock=lambda: clock[0])
    raise_budget(
        database, CATALOG, Owner("tenant", "acme"), USD, "day",
        starts_at=now + 10, ends_at=now + 20, reason="launch", actor="test", now=now,
    )  # fmt: skip
    await ring.refresh()
    assert (await ring.authenticate(bearer("sk-declared-key"))).budgets == (ACME,)
    clock[0] = now + 10
    await ring.refresh()
    raised = Budget("tenant:acme", 4 * USD, "day", raised=USD)
    assert (await ring.authenticate(bearer("sk-declared-key"))).budgets == (raised,)
    database.close()
    for path in tmp_path.iterdir():
        path.unlink()
    clock[0] = now + 20
    with pytest.raises(Unavailable):
        await ring.refresh()
    assert (await ring.authenticate(bearer("sk-declared-key"))).budgets == (ACME,)


async def test_a_declared_key_with_the_name_of_a_made_one_is_refused_at_the_start(database: Database) -> None:
    made = create_key(database, KeyOrder("declared", "acme"), "test")
    ring = KeyRing(CATALOG, database)
    with pytest.raises(ConfigError, match=f"penstock keys revoke {made.id}"):
        await ring.open()
    await ring.close()


def test_the_id_of_a_declared_key_is_that_of_its_tenant_and_name() -> None:
    [declared, _] = CATALOG.keys
    assert declared.id == declared_id("acme", "declared")
    rotated = catalog(model("m"), keys=[{"key": "sk-another-secret", "name": "declared", "tenant": "acme"}],
                      tenants=[{"name": "acme"}]).keys[0]  # fmt: skip
    assert (rotated.id, rotated.hash == declared.hash) == (declared.id, False)


def test_secrets_are_long_and_different() -> None:
    first, second = make_secret(), make_secret()
    assert first != second
    assert len(first) > 50
