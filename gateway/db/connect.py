"""Open the database: SQLite (WAL, one file) or PostgreSQL (psycopg, a bounded pool). Nothing connects before its first use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from gateway.errors import ConfigError, StartupError

POOL_SIZE = 5
CONNECT_SECONDS = 5
GRACE_SECONDS = 1.0
DEADLINE_SECONDS = 60.0
"""How long one statement may take. The server ends it then; a server that is frozen is given up shortly after."""
SQLITE_BUSY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Database:
    """A pool of connections. `url` is without its password, fit for messages."""

    engine: Engine
    url: str

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite; the other one is PostgreSQL."""
        return self.engine.dialect.name == "sqlite"

    def ping(self) -> None:
        """Ask the database for anything at all; raises what the driver raises when it does not answer."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def connect(url: str, *, deadline_seconds: float = DEADLINE_SECONDS, pool_size: int = POOL_SIZE) -> Database:
    """Prepare a database; the folder of a SQLite file is created. `deadline_seconds` bounds each statement in PostgreSQL,
    `pool_size` how many threads may use it at once.

    Raises ConfigError for a URL that is neither SQLite nor PostgreSQL, StartupError when the folder cannot be written.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(
            "the database URL cannot be read. Write sqlite:///path/penstock.db or postgresql://user:password@host/name."
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        return Database(_sqlite(parsed, shown, pool_size), shown)
    if kind in ("postgresql", "postgres"):
        return Database(_postgresql(parsed.set(drivername="postgresql+psycopg"), deadline_seconds, pool_size), shown)
    raise ConfigError(f"the database {shown!r} is neither SQLite nor PostgreSQL; those two are supported.")


def _sqlite(url: URL, shown: str, pool_size: int) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigError(
            f"the database {shown!r} has no file: several processes share it. Write sqlite:///penstock.db."
        )
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(url.database, "ab"):
            pass
    except OSError as error:
        raise StartupError(
            f"cannot write the database file {url.database!r}: {error.strerror}. "
            "Make its folder writable, or set DATABASE_URL or PENSTOCK_DATA_DIR to another place."
        ) from error
    engine = create_engine(
        url.set(drivername="sqlite"),
        pool_size=pool_size,
        connect_args={} if "timeout" in url.query else {"timeout": SQLITE_BUSY_SECONDS},
        hide_parameters=True,  # errors are logged, and rows are the customers'
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver must not open transactions by itself; db/transaction.py says BEGIN.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL, because the spool is deleted after a commit: a commit must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


def _postgresql(url: URL, deadline_seconds: float, pool_size: int) -> Engine:
    try:
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "options": f"-c statement_timeout={round(deadline_seconds * 1000)} -c timezone=UTC",
                "application_name": "penstock",
            },
            hide_parameters=True,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
        )
    except ModuleNotFoundError:
        raise ConfigError(
            "PostgreSQL is configured and its driver is not installed: run pip install 'penstock[postgres]'."
        ) from None
    from gateway.db.deadline import PatientConnection

    @event.listens_for(engine, "do_connect")
    def open_connection(_dialect: object, _record: object, parts: tuple[Any, ...], options: dict[str, Any]) -> Any:
        connection = PatientConnection.connect(*parts, **options)
        connection.patience = deadline_seconds + GRACE_SECONDS
        return connection

    return engine


def _to_json(value: object) -> str:
    return orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
