"""The schema on both databases: made by migrations alone, equal to the tables in code, refused when it is newer."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from gateway.db.connect import Database, connect
from gateway.db.migrate import check_schema, migrate
from gateway.db.tables import metadata
from gateway.db.transaction import snapshot, transaction
from gateway.errors import StartupError
from tests.backends import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'folder' / 'penstock.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"empty_{abs(hash(str(tmp_path)))}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def test_the_migrated_schema_is_the_one_in_code(database: Database) -> None:
    with snapshot(database) as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        indexes = {index["name"] for table in metadata.tables for index in inspect(connection).get_indexes(table)}
    assert indexes >= {index.name for table in metadata.tables.values() for index in table.indexes}


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    database = connect(empty_url)
    with pytest.raises(StartupError, match="Run `penstock migrate`"):
        check_schema(database)
    migrate(database)
    check_schema(database)
    migrate(database)
    check_schema(database)
    database.close()


def test_processes_that_start_together_migrate_once(empty_url: str) -> None:
    problems: list[BaseException] = []

    def start() -> None:
        database = connect(empty_url)
        try:
            migrate(database)
            check_schema(database)
        except BaseException as error:
            problems.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database) -> None:
    with transaction(database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    for check in (migrate, check_schema):
        with pytest.raises(StartupError, match=r"'9999_future', which this version does not know.*Upgrade Penstock"):
            check(database)
    with snapshot(database) as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999_future"


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    database = connect(empty_url)
    with transaction(database) as connection:
        connection.execute(text("CREATE TABLE rated_lines (in_the_way INTEGER)"))
    with pytest.raises(Exception, match="rated_lines"):
        migrate(database)
    with snapshot(database) as connection:
        assert inspect(connection).get_table_names() == ["rated_lines"]
    database.close()
