"""The runner on real databases: one leader, jobs that fail or are slow, a database that goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import update

from gateway.db.connect import Database, connect
from gateway.db.job_tables import job_leases
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict, Unavailable
from gateway.jobs import queries
from gateway.jobs.listing import list_jobs
from gateway.jobs.runner import Context, Job, Runner, new_holder, next_run, run_job
from gateway.settings import read_settings
from tests.backends import PostgresServer
from tests.builders import catalog

START = 1_790_000_000.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


def context_of(database: Database, clock: Callable[[], float] | None = None) -> Context:
    return Context(read_settings({}), catalog(), database, clock or Clock())


def last(database: Database, name: str) -> queries.Run:
    with snapshot(database) as connection:
        return queries.last_runs(connection)[name]


def end_leases(database: Database) -> None:
    """As if their time had passed."""
    with transaction(database) as connection:
        connection.execute(update(job_leases).values(until=moment(0)))


def finish(runner: Runner) -> None:
    """Wait for the jobs that a tick has started."""
    for thread in runner._running.values():
        thread.join(30)
        assert not thread.is_alive()


def test_a_job_runs_at_its_interval_and_says_what_it_did(database: Database) -> None:
    clock, runs = Clock(), []
    runner = Runner(context_of(database, clock), [Job("count", 60, lambda c: f"run {runs.append(c) or len(runs)}")])
    for seconds, expected in ((0, 1), (59, 1), (1, 2), (60, 3)):
        clock.time += seconds
        runner.tick()
        finish(runner)
        assert len(runs) == expected
    run = last(database, "count")
    assert (run.result, run.error, run.failures, run.started_at) == ("run 3", None, 0, moment(START + 120))
    assert list_jobs(database, [Job("count", 60, lambda c: None)])["leader"] == runner.holder


def test_only_one_of_two_processes_runs_the_jobs_and_the_other_one_takes_over(database: Database) -> None:
    clock, ran = Clock(), []
    first, second = (
        Runner(context_of(database, clock), [Job("work", 60, lambda c, name=name: ran.append(name))], lease_seconds=600)
        for name in ("first", "second")
    )
    first.tick()
    second.tick()
    finish(first)
    assert (ran, first.leads, second.leads) == (["first"], True, False)
    first.close()
    second._renew_at = 0.0
    second.tick()
    finish(second)
    assert second.leads
    assert ran == ["first"], "what the first one did a moment ago is not due again"
    clock.time += 60
    second.tick()
    finish(second)
    assert ran == ["first", "second"]


def test_a_leader_that_is_gone_without_a_word_is_replaced_when_its_lease_ends(database: Database) -> None:
    gone, ran = new_holder(), []
    with transaction(database) as connection:
        assert queries.take_lease(connection, "leader", gone, 600)
    runner = Runner(context_of(database), [Job("work", 60, lambda c: ran.append(1))])
    runner.tick()
    assert not runner.leads
    end_leases(database)
    runner._renew_at = 0.0
    runner.tick()
    finish(runner)
    assert ran == [1]


def test_a_job_that_fails_is_noted_and_tried_again_sooner_than_its_interval(database: Database) -> None:
    clock, works = Clock(), threading.Event()

    def fail(_: Context) -> str:
        if not works.is_set():
            raise ValueError("no such thing")
        return "done"

    job = Job("fragile", 86_400, fail)
    runner = Runner(context_of(database, clock), [job])
    runner.tick()
    finish(runner)
    assert (last(database, "fragile").error, last(database, "fragile").failures) == ("ValueError: no such thing", 1)
    clock.time += 10
    runner.tick()
    finish(runner)
    assert last(database, "fragile").failures == 2
    works.set()
    clock.time += 20
    runner.tick()
    finish(runner)
    run = last(database, "fragile")
    assert (run.result, run.error, run.failures, run.succeeded_at) == ("done", None, 0, moment(START + 30))


def test_a_slow_job_holds_up_no_other_and_is_not_started_twice(database: Database) -> None:
    release, started, quick = threading.Event(), [], []

    def wait(_: Context) -> None:
        started.append(1)
        release.wait(60)

    clock = Clock()
    jobs = [Job("slow", 5, wait), Job("quick", 5, lambda c: quick.append(1))]
    runner = Runner(context_of(database, clock), jobs)
    for _ in range(3):
        runner.tick()
        runner._running["quick"].join(30)
        clock.time += 5
    assert (len(started), len(quick)) == (1, 3)
    assert {job["name"]: job["running"] for job in list_jobs(database, jobs)["jobs"]} == {"slow": True, "quick": False}
    release.set()
    finish(runner)


def test_a_job_that_runs_elsewhere_is_refused(database: Database) -> None:
    context = context_of(database)

    def again(_: Context) -> None:
        with pytest.raises(Conflict, match="job outer is being run"):
            run_job(context, Job("outer", 1, lambda c: None), new_holder())

    assert run_job(context, Job("outer", 1, again), new_holder()).error is None
    assert run_job(context, Job("outer", 1, lambda c: "free again"), new_holder()).result == "free again"


def test_a_lease_is_renewed_while_its_job_runs(database: Database) -> None:
    context = context_of(database)

    def outlast(_: Context) -> None:
        # The renewals bring the end back after it was taken away.
        end_leases(database)
        for _ in range(2000):
            with snapshot(database) as connection:
                if "job long" in queries.lease_holders(connection):
                    return
            threading.Event().wait(0.01)
        raise AssertionError("the lease was not renewed")

    assert run_job(context, Job("long", 1, outlast), new_holder(), lease_seconds=0.3).error is None


def test_nothing_starts_while_the_database_is_away_and_the_runner_goes_on_afterwards(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    ran: list[int] = []
    database = connect(postgres_url, deadline_seconds=0.5)
    runner = Runner(context_of(database), [Job("work", 60, lambda c: ran.append(1))])
    with postgres_server.frozen(), pytest.raises(Unavailable):
        runner.tick()
    assert ran == []
    runner._renew_at = 0.0
    runner.tick()
    finish(runner)
    assert ran == [1]
    database.close()


def test_two_who_ask_at_once_do_not_both_get_the_lease(database: Database) -> None:
    taken: list[str] = []
    together = threading.Barrier(4)

    def ask(holder: str) -> None:
        together.wait(30)
        with transaction(database) as connection:
            if queries.take_lease(connection, "leader", holder, 600):
                taken.append(holder)

    threads = [threading.Thread(target=ask, args=(f"holder {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 1


def test_when_a_job_is_due() -> None:
    job = Job("daily", 86_400, lambda c: None)
    run = queries.Run("daily", "h", moment(START), 1.0, None, None, 0, moment(START))
    assert next_run(job, None, START) == START
    assert next_run(job, run, START + 5) == START + 86_400
    assert next_run(job, replace(run, failures=1), START) == START + 10
    assert next_run(job, replace(run, failures=4), START) == START + 80
    assert next_run(job, replace(run, failures=400), START) == START + 86_400
    assert next_run(job, run, START - 3600) == START - 3600, "a clock that was put back must not stop it"
