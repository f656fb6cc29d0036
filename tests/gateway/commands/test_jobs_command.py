"""The process that runs jobs, and the commands that show them: takeover, a clean end, one job by hand, the outbox."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from sqlalchemy import update

from gateway.db.connect import Database
from gateway.db.job_tables import job_leases
from gateway.db.outbox import Event, send_later
from gateway.db.tables import moment
from gateway.db.transaction import transaction
from gateway.jobs.table import JOBS
from tests.gateway.commands.processes import Start, complaint, penstock
from tests.receiver import SECRET, running_receiver

HANGING = """
import sys, threading
from gateway.db.connect import connect
from gateway.jobs.runner import Context, Job, run_until_signal
from gateway.settings import read_settings
from tests.builders import catalog

def hang(context):
    print("hanging", flush=True)
    threading.Event().wait()

run_until_signal(Context(read_settings({}), catalog(), connect(sys.argv[1])), [Job("hang", 5, hang)])
print("ended", flush=True)
"""


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "penstock.yaml"
    config.write_text("{}")
    return {
        "DATABASE_URL": database_url,
        "PENSTOCK_CONFIG": str(config),
        "PENSTOCK_DATA_DIR": str(tmp_path / "data"),
        "PENSTOCK_LOG_LEVEL": "info",
    }


def test_the_next_process_runs_the_jobs_when_the_first_is_killed(
    start: Start, environment: dict[str, str], database: Database
) -> None:
    first = start("-m", "gateway", "jobs", "work", environment=environment)
    first.see("this process runs the jobs now")
    first.see("the books of 0 requests are right")
    second = start("-m", "gateway", "jobs", "work", environment=environment)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(30)
    with transaction(database) as connection:  # as if the lease of the dead one had run out
        connection.execute(update(job_leases).values(until=moment(0)))
    second.see("this process runs the jobs now")
    leader = json.loads(penstock("jobs", "list", "--json", environment=environment).stdout)["leader"]
    assert f" {second.process.pid} " in leader
    second.send(signal.SIGTERM)
    assert second.finish(20) == 0
    assert json.loads(penstock("jobs", "list", "--json", environment=environment).stdout)["leader"] is None


def test_a_signal_ends_the_process_although_a_job_hangs(start: Start, environment: dict[str, str]) -> None:
    running = start("-c", HANGING, environment["DATABASE_URL"])
    running.see("hanging")
    begun = time.monotonic()
    running.send(signal.SIGTERM)
    assert running.finish(20) == 0
    assert "ended" in running.lines
    assert time.monotonic() - begun < 15


def test_a_job_is_run_by_hand_and_then_listed(environment: dict[str, str]) -> None:
    before = penstock("jobs", "list", environment=environment)
    assert "never" in before.stdout
    assert "run by: nobody" in before.stdout
    done = penstock("jobs", "run", "verify", environment=environment)
    assert (done.returncode, done.stdout) == (0, "the books of 0 requests are right\n")
    listed = {
        job["name"]: job
        for job in json.loads(penstock("jobs", "list", "--json", environment=environment).stdout)["jobs"]
    }
    assert listed["verify"]["result"] == "the books of 0 requests are right"
    assert listed["verify"]["error"] is None
    assert listed["send"]["started_at"] is None


def test_a_job_that_does_not_exist_is_refused_with_the_names_of_those_that_do(environment: dict[str, str]) -> None:
    done = penstock("jobs", "run", "tidy", environment=environment)
    assert done.returncode == 2
    assert f"there is no job 'tidy'. Known: {', '.join(job.name for job in JOBS)}" in complaint(done)


def test_a_job_that_fails_by_hand_ends_with_1_and_says_why(environment: dict[str, str], database: Database) -> None:
    with transaction(database) as connection:
        connection.exec_driver_sql("DROP TABLE dead_letters")
    done = penstock("jobs", "run", "watch", "--json", environment=environment)
    assert done.returncode == 1
    assert "dead_letters" in json.loads(done.stdout)["error"]


def test_what_was_given_up_is_listed_and_sent_again(environment: dict[str, str], database: Database) -> None:
    with running_receiver() as receiver:
        receiver.answer = lambda delivery: 410
        webhook = {"webhook": {"url": receiver.url, "secret": SECRET}}
        Path(environment["PENSTOCK_CONFIG"]).write_text(yaml.safe_dump({"events": webhook}))
        now = time.time()
        with transaction(database) as connection:
            send_later(connection, "events", [Event("req_1", "penstock.request.metered", "acme", now, {})], now)
        waiting = penstock("events", "list", environment=environment)
        assert "given up: 0 messages; not tried yet: 1 for events" in waiting.stdout
        penstock("jobs", "run", "send", environment=environment)
        (dead,) = json.loads(penstock("events", "list", "--dead", "--json", environment=environment).stdout)["messages"]
        assert (dead["state"], dead["events"], dead["error"]) == ("dead", 1, "answered 410")
        assert "answered 410" in penstock("events", "list", environment=environment).stdout
        unknown = penstock("events", "retry", "msg_x", environment=environment)
        assert unknown.returncode == 1
        assert "'msg_x'" in complaint(unknown)
        assert penstock("events", "retry", environment=environment).returncode == 2
        assert penstock("events", "retry", "--all", dead["id"], environment=environment).returncode == 2
        receiver.answer = lambda delivery: 204
        again = penstock("events", "retry", dead["id"], environment=environment)
        assert again.stdout == "1 messages are sent again.\n"
        penstock("jobs", "run", "send", environment=environment)
        assert [delivery.id for delivery in receiver.deliveries] == [dead["id"], dead["id"]]
        assert penstock("events", "list", "--json", environment=environment).stdout.startswith('{"dead":0,"unsent":{}')
