"""What `up` and `serve` have in common: the gateway's processes, and running them until a signal comes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from gateway.commands.configuration import ENGINE_KEY
from gateway.commands.listen import base_url
from gateway.settings import Settings, environment_for_child
from gateway.supervise import Program, Supervisor

WORKER_GRACE = 40.0
"""Seconds for running streams to end and be settled; the worker itself gives them 30."""
DELIVERER_GRACE = 30.0
JOBS_GRACE = 10.0
COLOURS = ("cyan", "green", "yellow", "magenta", "blue")


def gateway_environment(settings: Settings) -> dict[str, str]:
    """These settings as a child's environment. Secrets travel here and never in a command line."""
    changes = {
        "PENSTOCK_CONFIG": str(settings.config) if settings.config else "",
        "PENSTOCK_HOST": settings.host,
        "PENSTOCK_PORT": str(settings.port),
        "PENSTOCK_DATA_DIR": str(settings.data_dir),
        "PENSTOCK_ADMIN_KEY": settings.admin_key or "",
        "PENSTOCK_WORKERS": str(settings.workers),
        "PENSTOCK_LOG_LEVEL": settings.log_level,
        "DATABASE_URL": settings.database_url or "",
        "REDIS_URL": settings.redis_url or "",
        "PYTHONUNBUFFERED": "1",
    }
    return environment_for_child(**changes)


def worker_programs(
    settings: Settings, listener: socket.socket, engine_url: str | None, engine_key: str | None = None
) -> list[Program]:
    """The gateway's worker processes; all accept from the one listening socket."""
    command = [sys.executable, "-m", "gateway", "worker", "--fd", str(listener.fileno())]
    command += ["--engine-url", engine_url] if engine_url else []
    environment = gateway_environment(settings) | ({ENGINE_KEY: engine_key} if engine_key else {})
    names = ["gateway"] if settings.workers == 1 else [f"gateway-{n}" for n in range(1, settings.workers + 1)]
    return [
        Program(
            name=name,
            command=tuple(command),
            environment=environment,
            descriptors=(listener.fileno(),),
            # Any worker may answer, so with several the first answer says that one of them is ready.
            ready_url=f"{base_url(listener)}/health/ready",
            grace=WORKER_GRACE,
        )
        for name in names
    ]


def deliverer_program(settings: Settings) -> Program:
    """The process that brings usage events from the spool to the database."""
    return Program(
        name="deliver",
        command=(sys.executable, "-m", "gateway", "deliver"),
        environment=gateway_environment(settings),
        grace=DELIVERER_GRACE,
    )


def jobs_program(settings: Settings) -> Program:
    """The process that runs jobs, or waits to take over from another host's."""
    return Program(
        name="jobs",
        command=(sys.executable, "-m", "gateway", "jobs", "work"),
        environment=gateway_environment(settings),
        grace=JOBS_GRACE,
    )


def run_until_stopped(
    stages: Sequence[Sequence[Program]], listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Run the stages until a signal; then the listening socket is closed first, so that new connections are refused."""
    log = Log([program.name for stage in stages for program in stage])

    def ready() -> None:
        log.started()
        on_ready()

    async def run() -> None:
        await Supervisor(stages, log.say, log.child_ready).run(ready, listener.close)

    try:
        asyncio.run(run())
    finally:
        log.started()


class Log:
    """`name | line` on standard error, names aligned and coloured; on a terminal, bars until everything has started."""

    def __init__(self, names: Sequence[str]) -> None:
        self._console = Console(stderr=True)
        self._width = max(map(len, names), default=0)
        self._colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
        self._bars: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("starting {task.description}"), BarColumn(), TimeElapsedColumn())
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._tasks = {name: self._bars.add_task(name.ljust(self._width), total=None) for name in names}
            self._bars.start()

    def say(self, name: str, line: str) -> None:
        """Print one line of a child."""
        prefix = Text(name.ljust(self._width), style=self._colours.get(name, ""))
        with suppress(OSError):  # a terminal that is gone must not stop the supervision
            self._console.print(prefix.append(f" | {line}", style="default"), soft_wrap=True)

    def child_ready(self, name: str) -> None:
        """Fill its bar. How far a child is before that is not known, so the bar only moves."""
        if self._bars is not None:
            self._bars.update(self._tasks[name], total=1, completed=1)

    def started(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
