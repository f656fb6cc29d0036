"""Fixtures that many tests share: real databases and stores, each test with its own empty one."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as redis_client

from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.store.base import Store
from gateway.store.memory import MemoryStore
from tests.backends import PostgresServer, RedisServer, running_postgres, running_redis

_numbers = itertools.count()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def _migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database; copying it is quicker than migrating again."""
    postgres_server.execute("CREATE DATABASE migrated")
    database = connect(postgres_server.url("migrated"))
    migrate(database)
    database.close()
    return "migrated"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _migrated_template: str) -> Iterator[str]:
    """An empty, migrated PostgreSQL database for one test."""
    name = f"test_{next(_numbers)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {_migrated_template}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty, migrated SQLite database for one test."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    database = connect(url)
    migrate(database)
    database.close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A test that uses it runs on both databases."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database, both kinds."""
    opened = connect(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for the whole run."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis for one test."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store, both kinds."""
    if request.param == "memory":
        opened: Store = MemoryStore()
    else:
        from gateway.store.redis import RedisStore

        opened = RedisStore(request.getfixturevalue("redis_url"))
    yield opened
    await opened.close()
