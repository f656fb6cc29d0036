"""Runs jobs at their intervals in one process per installation, which a lease in SQL elects; when it ends another takes over.

A job that fails is logged, noted and tried again; a slow one holds up no other, as each runs in a thread. While the database is
away nothing is started, and the pauses between two looks grow. A process that was frozen may find another one in its place, and
a job may be run by hand beside it: a job must stand being run twice, and a lease per job makes that rare.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict, PenstockError, Unavailable
from gateway.jobs import queries
from gateway.jobs.queries import Run
from gateway.settings import Settings

LEADER = "leader"
LEASE_SECONDS = 15.0
POLL_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
FIRST_RETRY_SECONDS = 10.0
STOP_SECONDS = 5.0
"""Running jobs have this long to end after SIGTERM; then their transactions are rolled back with the process."""
LONGEST_ERROR = 1000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What a job has: it opens and closes whatever else it needs. `stop` is set when the process is to end.

    `leases` is for the runner alone: its statements are short and give up soon, so that a database that hangs is noticed.
    """

    settings: Settings
    catalog: Catalog
    database: Database
    now: Callable[[], float] = time.time
    stop: threading.Event = field(default_factory=threading.Event)
    leases: Database | None = None

    @property
    def runners(self) -> Database:
        """The database as the runner uses it."""
        return self.leases or self.database


@dataclass(frozen=True, slots=True)
class Job:
    """Something done again and again. `every` is seconds from start to start.

    `run` says in a few words what it did, or returns None for nothing worth saying, and raises when it failed.
    """

    name: str
    every: float
    run: Callable[[Context], str | None]


class Runner:
    """Runs jobs while it leads. `tick` is one look at what is due."""

    def __init__(self, context: Context, jobs: Sequence[Job], *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.holder = new_holder()
        self._context = context
        self._jobs = jobs
        self._lease_seconds = lease_seconds
        self._leads_until = self._renew_at = 0.0
        self._due: dict[str, float] = {}
        self._running: dict[str, threading.Thread] = {}

    @property
    def leads(self) -> bool:
        """Whether this process is the one that runs the jobs, by its own clock."""
        return time.monotonic() < self._leads_until

    def run(self) -> None:
        """Run what is due until `stop` is set. Database failures are waited out with growing pauses."""
        pause, stop = POLL_SECONDS, self._context.stop
        while not stop.is_set():
            try:
                self.tick()
                pause = POLL_SECONDS
            except Unavailable as error:
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
                logger.warning("no job is started: %s", error.message)
            stop.wait(pause)
        self.close()

    def tick(self) -> None:
        """Become or stay the leader, and start what is due. Raises Unavailable when the database does not answer."""
        if time.monotonic() >= self._renew_at:
            self._lead()
        if not self.leads:
            return
        now = self._context.now()
        self._running = {name: thread for name, thread in self._running.items() if thread.is_alive()}
        for job in self._jobs:
            if self._due.get(job.name, 0.0) <= now and job.name not in self._running:
                thread = threading.Thread(target=self._run, args=(job,), name=f"job {job.name}", daemon=True)
                self._running[job.name] = thread
                thread.start()

    def close(self) -> None:
        """Let running jobs end, within a few seconds, and let another process lead."""
        gives_up_at = time.monotonic() + STOP_SECONDS
        for thread in self._running.values():
            thread.join(max(0.0, gives_up_at - time.monotonic()))
        try:
            with transaction(self._context.runners) as connection:
                queries.release_lease(connection, LEADER, self.holder)
        except Unavailable as error:
            logger.warning("the next leader waits for the end of this one's lease: %s", error.message)

    def _lead(self) -> None:
        led, asked_at = self.leads, time.monotonic()
        self._renew_at = asked_at + self._lease_seconds / 3
        with transaction(self._context.runners) as connection:
            taken = queries.take_lease(connection, LEADER, self.holder, self._lease_seconds)
        self._leads_until = asked_at + self._lease_seconds if taken else 0.0
        if taken and not led:
            logger.info("this process runs the jobs now")
            with snapshot(self._context.runners) as connection:
                runs = queries.last_runs(connection)
            now = self._context.now()
            self._due = {job.name: next_run(job, runs.get(job.name), now) for job in self._jobs}

    def _run(self, job: Job) -> None:
        run: Run | None = None
        try:
            run = run_job(self._context, job, self.holder, lease_seconds=self._lease_seconds)
        except Conflict as error:
            logger.info(error.message)
        except Unavailable as error:
            logger.warning("job %s: %s", job.name, error.message)
        now = self._context.now()
        self._due[job.name] = next_run(job, run, now) if run else now + min(job.every, FIRST_RETRY_SECONDS)


def next_run(job: Job, last: Run | None, now: float) -> float:
    """When a job is due, seconds since the epoch (pure): its interval after its last start, sooner when that failed."""
    if last is None:
        return now
    started = last.started_at.timestamp()
    if started > now:  # the clock was put back
        return now
    pause = min(job.every, FIRST_RETRY_SECONDS * 2 ** min(last.failures - 1, 20)) if last.failures else job.every
    return started + pause


def run_job(context: Context, job: Job, holder: str, *, lease_seconds: float = LEASE_SECONDS) -> Run:
    """Run a job once and note how it went, also when it failed.

    Raises Conflict when it is being run elsewhere, Unavailable when the database does not answer.
    """
    with _lease(context.runners, f"job {job.name}", holder, lease_seconds):
        with snapshot(context.runners) as connection:
            before = queries.last_runs(connection).get(job.name)
        started, clock = context.now(), time.monotonic()
        result = error = None
        try:
            result = job.run(context)
        except PenstockError as failure:
            error = failure.message[:LONGEST_ERROR]
            logger.warning("job %s failed: %s", job.name, error)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"[:LONGEST_ERROR]
            logger.exception("job %s failed", job.name)
        run = Run(
            name=job.name,
            holder=holder,
            started_at=moment(started),
            seconds=time.monotonic() - clock,
            result=result,
            error=error,
            failures=(before.failures if before else 0) + 1 if error is not None else 0,
            succeeded_at=(before.succeeded_at if before else None) if error is not None else moment(context.now()),
        )
        with transaction(context.runners) as connection:
            queries.note_run(connection, run)
        if result:
            logger.info("job %s: %s", job.name, result)
        return run


def run_until_signal(context: Context, jobs: Sequence[Job]) -> None:
    """Run jobs until SIGTERM or SIGINT, or until the parent process is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: context.stop.set())
    threading.Thread(target=_stop_without, args=(os.getppid(), context.stop), daemon=True).start()
    Runner(context, jobs).run()


def new_holder() -> str:
    """A name for this process that no other one has: where it runs, and something random."""
    return f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"


@contextmanager
def _lease(database: Database, name: str, holder: str, seconds: float) -> Iterator[None]:
    """Hold a lease and keep renewing it. Raises Conflict when another one has it."""
    # A name of its own: the same process must not run a job twice at a time either.
    holder = f"{holder} {secrets.token_hex(4)}"
    with transaction(database) as connection:
        if not queries.take_lease(connection, name, holder, seconds):
            raise Conflict(f"{name} is being run by another process; see `penstock jobs list`.")
    done = threading.Event()
    keeper = threading.Thread(target=_renew, args=(database, name, holder, seconds, done), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with transaction(database) as connection:
            queries.release_lease(connection, name, holder)


def _renew(database: Database, name: str, holder: str, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds / 3):
        try:
            with transaction(database) as connection:
                if not queries.take_lease(connection, name, holder, seconds):
                    logger.warning("%s runs longer than its lease, and another process has it now", name)
                    return
        except Unavailable as error:
            logger.warning("the lease of %s is not renewed: %s", name, error.message)


def _stop_without(parent: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if os.getppid() != parent:
            stop.set()
