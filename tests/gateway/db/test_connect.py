"""Opening databases: bad addresses, unwritable folders, servers that are gone; and what a transaction promises."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from gateway.db.connect import Database, connect
from gateway.db.tables import UtcDateTime, dead_letters, moment, spool_checkpoints
from gateway.db.transaction import snapshot, transaction
from gateway.errors import ConfigError, StartupError, Unavailable
from tests.backends import free_port


def checkpoint(segment: str) -> dict[str, object]:
    return {"segment": segment, "delivered_bytes": 1, "updated_at": moment(0)}


def count(database: Database) -> int:
    with snapshot(database) as connection:
        return connection.scalar(select(func.count()).select_from(spool_checkpoints)) or 0


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_work_is_refused_with_what_can(url: str) -> None:
    with pytest.raises(ConfigError, match=r"SQLite|sqlite:///"):
        connect(url)


def test_a_folder_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartupError, match="DATABASE_URL or PENSTOCK_DATA_DIR"):
        connect(f"sqlite:///{tmp_path / 'file' / 'penstock.db'}")


def test_a_password_is_not_in_messages() -> None:
    database = connect(f"postgresql://user:secret-word@127.0.0.1:{free_port()}/db")
    assert "secret-word" not in database.url
    with pytest.raises(Unavailable) as caught, transaction(database):
        pass
    assert "secret-word" not in str(caught.value)
    database.close()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = connect(f"postgresql://postgres@127.0.0.1:{free_port()}/db")
    with pytest.raises(Unavailable, match="cannot be used"), snapshot(database):
        pass
    database.close()


def test_what_raises_is_rolled_back(database: Database) -> None:
    def write_and_fail() -> None:
        with transaction(database) as connection:
            connection.execute(insert(spool_checkpoints).values(**checkpoint("a")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert count(database) == 0


def test_an_error_of_the_data_stays_what_it_is_and_rolls_back(database: Database) -> None:
    with pytest.raises(IntegrityError), transaction(database) as connection:
        connection.execute(insert(spool_checkpoints), [checkpoint("a"), checkpoint("a")])
    assert count(database) == 0


def test_a_snapshot_sees_one_state_and_cannot_write_it(database: Database) -> None:
    with snapshot(database) as connection:
        before = connection.scalar(select(func.count()).select_from(spool_checkpoints))
        with transaction(database) as other:
            other.execute(insert(spool_checkpoints).values(**checkpoint("a")))
        assert connection.scalar(select(func.count()).select_from(spool_checkpoints)) == before == 0
    with snapshot(database) as connection:
        if database.is_sqlite:
            connection.execute(insert(spool_checkpoints).values(**checkpoint("b")))
    assert count(database) == 1


def test_writers_wait_for_each_other(database: Database) -> None:
    def write(number: int) -> None:
        for step in range(10):
            with transaction(database) as connection:
                connection.execute(select(func.count()).select_from(spool_checkpoints))
                connection.execute(insert(spool_checkpoints).values(**checkpoint(f"{number}-{step}")))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 40


def test_a_killed_statement_is_unavailable_not_half_done(postgres_url: str) -> None:
    database = connect(postgres_url)

    def write_and_wait() -> None:
        with transaction(database) as connection:
            connection.execute(insert(spool_checkpoints).values(**checkpoint("a")))
            connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
            connection.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(Unavailable, match="statement timeout"):
        write_and_wait()
    assert count(database) == 0
    database.close()


def test_times_come_back_in_utc_to_the_microsecond(database: Database) -> None:
    given = datetime(2026, 11, 21, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with transaction(database) as connection:
        row = {"segment": "s", "position": 1, "reason": "r", "line": b"\0\xff", "found_at": given}
        connection.execute(insert(dead_letters).values(**row))
    with snapshot(database) as connection:
        found = connection.execute(select(dead_letters)).one()
    assert found.found_at == given
    assert found.found_at.tzinfo is UTC
    assert found.line == b"\0\xff"


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    table = Table("spool_checkpoints", MetaData(), Column("updated_at", UtcDateTime))
    with pytest.raises(StatementError, match="has no time zone"), transaction(database) as connection:
        connection.execute(select(table).where(table.c.updated_at > datetime(2026, 1, 1)))
