"""Keys of a database from before they kept their id: secrets, budgets, limits and names move, on both databases."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from gateway.callers import Budget, RateLimit
from gateway.catalog import hash_key
from gateway.db.connect import Database, connect
from gateway.db.migrate import _alembic, check_schema, migrate
from gateway.db.transaction import transaction
from gateway.errors import RevokedKey
from gateway.keys.authenticate import KeyRing
from gateway.keys.change import revoke_key, rotate_key
from gateway.keys.queries import list_keys
from tests.backends import PostgresServer
from tests.builders import catalog, model

CATALOG = catalog(model("m"), tenants=[{"name": "acme"}])


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A database with the schema of version 0004."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'old.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("DROP DATABASE IF EXISTS before_identity WITH (FORCE)")
        server.execute("CREATE DATABASE before_identity")
        url = server.url("before_identity")
    database = connect(url)
    with transaction(database) as connection:
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
    yield database
    database.close()


def old_key(database: Database, secret: str, name: str, tenant: str = "acme", **columns: Any) -> str:
    values = {
        "id": f"key_{hash_key(secret)[:16]}", "hash": hash_key(secret), "name": name, "tenant": tenant,
        "models": None, "tiers": None, "budget_limit_pico": None, "budget_period": None, "limits": None,
        "created_at": datetime.now(UTC).replace(tzinfo=None) if database.is_sqlite else datetime.now(UTC),
        "expires_at": None, "revoked_at": None, "last_used_at": None, **columns,
    }  # fmt: skip
    if database.is_sqlite:
        values = {name: str(value) if isinstance(value, datetime) else value for name, value in values.items()}
    names = ", ".join(values)
    with transaction(database) as connection:
        connection.execute(
            text(f"INSERT INTO api_keys ({names}) VALUES ({', '.join(f':{each}' for each in values)})"), values
        )
    return str(values["id"])


async def test_old_keys_go_on_with_their_secrets_budgets_limits_and_scopes(old_database: Database) -> None:
    rich = old_key(
        old_database, "sk-rich", "rich", models='["auto"]', tiers='["economy"]',
        budget_limit_pico=5, budget_period="day", limits='{"requests": 60, "parallel": 3}',
    )  # fmt: skip
    plain = old_key(old_database, "sk-plain", "plain")
    migrate(old_database)
    check_schema(old_database)
    ring = KeyRing(CATALOG, old_database)
    await ring.refresh()
    caller = await ring.authenticate("Bearer sk-rich")
    assert (caller.key_id, caller.models, caller.tiers) == (rich, frozenset({"auto"}), frozenset({"economy"}))
    assert caller.budgets == (Budget(f"key:{rich}", 5, "day"),)
    assert set(caller.limits) == {RateLimit(f"key:{rich}", "requests", 60), RateLimit(f"key:{rich}", "parallel", 3)}
    assert (await ring.authenticate("Bearer sk-plain")).key_id == plain
    new = rotate_key(old_database, "plain", 0, "test")
    await ring.refresh()
    with pytest.raises(RevokedKey):
        await ring.authenticate("Bearer sk-plain")
    assert (await ring.authenticate(f"Bearer {new.secret}")).key_id == plain


async def test_keys_of_one_name_become_different_and_all_go_on(old_database: Database) -> None:
    past, future = (datetime.fromtimestamp(time.time() + offset, UTC) for offset in (-60, 3600))
    if old_database.is_sqlite:
        past, future = (moment.replace(tzinfo=None) for moment in (past, future))
    first = old_key(old_database, "sk-1", "app", created_at=past)
    newest = old_key(old_database, "sk-2", "app")
    old_key(old_database, "sk-3", "app", tenant="default")
    old_key(old_database, "sk-4", "app", revoked_at=past)
    overlapping = old_key(old_database, "sk-5", "app", revoked_at=future)
    migrate(old_database)
    names = {key.id: key.name for key in list_keys(old_database)}
    assert (names[newest], names[first], names[overlapping]) == ("app", f"app ({first})", "app")
    ring = KeyRing(CATALOG, old_database)
    for secret in ("sk-1", "sk-2", "sk-3", "sk-5"):
        await ring.authenticate(f"Bearer {secret}")
    with pytest.raises(RevokedKey):
        await ring.authenticate("Bearer sk-4")
    assert revoke_key(old_database, overlapping, "test").id == overlapping


def test_a_database_without_keys_is_migrated_too(old_database: Database) -> None:
    migrate(old_database)
    check_schema(old_database)
    assert list_keys(old_database) == []
