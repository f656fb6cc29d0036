"""Keys from their making to their end: shown once, stored as a hash, scoped, revoked, expired."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.callers import Budget, RateLimit
from gateway.catalog import hash_key
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.errors import InvalidKey, MissingKey, RevokedKey, Unavailable
from gateway.keys.authenticate import KeyRing
from gateway.keys.queries import end_key, list_keys
from gateway.keys.secrets import create_key, key_id, make_secret, mask
from tests.builders import catalog, model

CATALOG = catalog(
    model("m"),
    keys=[{"key": "sk-declared-key", "name": "declared", "tenant": "acme", "models": ["auto"]}],
    tenants=[{"name": "acme", "budget": {"limit_usd": 3, "period": "day"}}],
)


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
    assert caller.budgets == (Budget("tenant:acme", 3 * 10**12, "day"),)


async def test_a_made_key_works_at_once_and_its_secret_is_nowhere_on_disk(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(CATALOG, database)
    await ring.refresh()
    new = create_key(
        database,
        name="app",
        tenant="acme",
        budget=(10**12, "month"),
        limits={"parallel": 4},
        tiers=frozenset({"economy"}),
    )
    caller = await ring.authenticate(bearer(new.secret))
    assert (caller.key_id, caller.tiers) == (new.id, frozenset({"economy"}))
    assert Budget(f"key:{new.id}", 10**12, "month") in caller.budgets
    assert caller.limits == (RateLimit(f"key:{new.id}", "parallel", 4),)
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
    new = create_key(database, name="app")
    await ring.authenticate(bearer(new.secret))
    assert end_key(database, "app", time.time()) == [new.id]
    await ring.refresh()
    with pytest.raises(RevokedKey, match="'app' has been revoked"):
        await ring.authenticate(bearer(new.secret))
    assert end_key(database, "app", time.time()) == []


async def test_a_rotated_key_works_until_its_overlap_ends(database: Database) -> None:
    now = time.time()
    clock = [now]
    ring = KeyRing(CATALOG, database, clock=lambda: clock[0])
    new = create_key(database, name="app")
    end_key(database, new.id, now + 3600)
    await ring.refresh()
    await ring.authenticate(bearer(new.secret))
    clock[0] = now + 3601
    await ring.refresh()
    with pytest.raises(RevokedKey):
        await ring.authenticate(bearer(new.secret))


async def test_an_expired_key_says_so(database: Database) -> None:
    new = create_key(database, name="app", expires_at=time.time() - 1)
    with pytest.raises(RevokedKey, match="expired"):
        await KeyRing(CATALOG, database).authenticate(bearer(new.secret))


async def test_known_keys_go_on_working_while_the_database_is_away(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(CATALOG, database)
    new = create_key(database, name="app")
    await ring.refresh()
    database.close()
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Unavailable):
        list_keys(database)
    assert (await ring.authenticate(bearer(new.secret))).key_id == new.id


async def test_the_last_use_is_written_with_the_refresh(database: Database) -> None:
    new = create_key(database, name="app")
    ring = KeyRing(CATALOG, database)
    assert list_keys(database)[0].last_used_at is None
    await ring.authenticate(bearer(new.secret))
    await ring.refresh()
    used = list_keys(database)[0].last_used_at
    assert used is not None
    assert abs(used - time.time()) < 60


def test_secrets_are_long_different_and_masked() -> None:
    first, second = make_secret(), make_secret()
    assert first != second
    assert len(first) > 50
    assert key_id(first) != key_id(second)
    assert first not in mask(first)
    assert mask("short") == "***"
