"""Real PostgreSQL and Redis for the tests: started from installed binaries on a socket or a free port, removed afterwards.

A missing binary skips the tests that need it with the command that installs it; under PENSTOCK_REQUIRE_BACKENDS=1 (CI) it
fails them instead.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

START_SECONDS = 30.0


def missing(what: str, install: str) -> None:
    """Skip the test, or fail it where everything must be there."""
    message = f"{what} is not installed: {install}"
    if os.environ.get("PENSTOCK_REQUIRE_BACKENDS") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True)
class PostgresServer:
    """A running PostgreSQL that listens on a Unix socket in `folder` only."""

    folder: Path
    process: subprocess.Popen[bytes]
    start: Callable[[], subprocess.Popen[bytes]]

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    @contextmanager
    def gone(self) -> Iterator[None]:
        """A crash of the whole server; it recovers afterwards."""
        _stop(self.process, signal.SIGQUIT)
        try:
            yield
        finally:
            process = self.start()
            object.__setattr__(self, "process", process)
            _wait(process, lambda: self.execute("SELECT 1"), psycopg.OperationalError)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server, as a hanging machine does, and let them go on afterwards."""
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres") as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        processes = [self.process.pid, *(pid for (pid,) in rows)]
        for pid in processes:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                _signal(pid, signal.SIGCONT)


@dataclass(frozen=True)
class RedisServer:
    """A running Redis without persistence."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A fresh cluster. PostgreSQL refuses to run as root, so root starts it as another user."""
    initdb, postgres = _postgres_binary("initdb"), _postgres_binary("postgres")
    if initdb is None or postgres is None:
        missing("PostgreSQL", "apt-get install postgresql (or brew install postgresql)")
    user = _unprivileged_user() if os.geteuid() == 0 else None
    # Directly under the temporary folder: a Unix socket's path may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
        data = folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as,
        )  # fmt: skip
        settings = {
            "listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "max_connections": "200",
            "shared_buffers": "64MB", "log_min_messages": "fatal",
        }  # fmt: skip
        command = [
            postgres,
            "-D",
            data,
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]

        def start() -> subprocess.Popen[bytes]:
            with (folder / "log").open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **run_as)

        server = PostgresServer(folder, start(), start)
        try:
            _wait(server.process, lambda: server.execute("SELECT 1"), psycopg.OperationalError)
            yield server
        finally:
            _stop(server.process, signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_redis(port: int | None = None, folder: Path | None = None) -> Iterator[RedisServer]:
    """A Redis of its own, on a free port unless one is named; it loads a snapshot that lies in the folder, if one is named."""
    binary = shutil.which("redis-server")
    if binary is None:
        missing("Redis", "apt-get install redis-server (or brew install redis)")
    with tempfile.TemporaryDirectory(prefix="penstock-redis-") as own_folder:
        port = port or free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([*command, "--dir", folder or own_folder], stdout=subprocess.DEVNULL)
        server = RedisServer(port, process)
        try:

            def ping() -> None:
                with redis.Redis(port=port) as client:
                    client.ping()

            _wait(process, ping, redis.ConnectionError)
            yield server
        finally:
            _stop(process, signal.SIGTERM)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_binary(name: str) -> str | None:
    """Debian keeps the servers of PostgreSQL off the PATH; the newest version wins."""
    folders = sorted(
        glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: path.split("/")[-2].zfill(4), reverse=True
    )
    return shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("root needs a user `postgres` or `nobody` to start PostgreSQL as")


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], None], not_yet: type[Exception]) -> None:
    gives_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            ready()
            return
        except not_yet:
            if process.poll() is not None or time.monotonic() > gives_up_at:
                raise
            time.sleep(0.05)


def _signal(pid: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(signal.SIGCONT)
    process.send_signal(how)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
