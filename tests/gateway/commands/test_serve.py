"""`penstock serve` as a process: ready, several workers on one socket, a clean stop in mid-stream, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backends import PostgresServer
from tests.gateway.commands.processes import Running, Start, complaint, gone, penstock

KEY = "sk-serve-test-0123456789"
AUTH = {"authorization": f"Bearer {KEY}"}
ECHO = {"name": "echo", "tier": "economy", "provider": "scripted", "price": {"input": 1, "output": 2}}
SLOW = {
    **ECHO,
    "name": "slow",
    "script": {"reply": "one two three four five six seven eight", "per_token_seconds": 0.25},
}


def configuration(folder: Path, *models: dict[str, Any], **more: Any) -> dict[str, str]:
    """Write a configuration; gives the environment that names it."""
    path = folder / "penstock.json"
    path.write_text(json.dumps({"models": list(models), "keys": [{"key": KEY, "name": "test"}], **more}))
    return {"PENSTOCK_CONFIG": str(path), "PENSTOCK_DATA_DIR": str(folder / "data"), "PENSTOCK_PORT": "0"}


def serve(start: Start, environment: dict[str, str], *options: str) -> tuple[Running, str]:
    """Start and wait; the process and its base URL."""
    running = start("-m", "gateway", "serve", *options, environment=environment)
    return running, running.wait_for("Penstock is ready at").split()[-1]


def question(model: str, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": model, "messages": [{"role": "user", "content": "say it"}], **more}


def workers_of(running: Running) -> list[int]:
    """Process ids of the gateway's workers."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(running.process.pid)]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(row.split()[0]) for row in rows if "gateway worker" in row]


def test_a_stream_that_is_running_at_sigterm_is_finished_and_billed(start: Start, tmp_path: Path) -> None:
    environment = configuration(tmp_path, SLOW)
    running, url = serve(start, environment)
    with httpx.stream(
        "POST", f"{url}/chat/completions", headers=AUTH, json=question("slow", stream=True), timeout=60
    ) as reply:
        lines = reply.iter_lines()
        first = next(lines)
        running.send(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while True:  # the door closes while the stream goes on
            try:
                httpx.get(f"{url}/models", headers=AUTH, timeout=5)
            except httpx.ConnectError:
                break
            assert time.monotonic() < deadline
        rest = list(lines)
    assert first.startswith("data: ")
    assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]"
    assert running.finish(60) == 0
    usage = json.loads(penstock("usage", "--group-by", "model,outcome", "--json", environment=environment).stdout)
    (row,) = usage["rows"]
    assert (row["model"], row["outcome"], row["requests"]) == ("slow", "completed", 1)
    books = penstock("ledger", "verify", environment=environment)
    assert books.returncode == 0, books.stderr
    assert "The books are right." in books.stdout


def test_several_workers_share_one_socket_and_one_that_dies_is_replaced(
    start: Start, tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    environment = configuration(tmp_path, ECHO, database=postgres_url, redis=redis_url)
    running, url = serve(start, environment, "--workers", "2")
    before = workers_of(running)
    assert len(before) == 2
    for _ in range(10):
        assert httpx.post(f"{url}/chat/completions", headers=AUTH, json=question("echo"), timeout=30).status_code == 200
    os.kill(before[0], signal.SIGKILL)
    running.wait_for("ended with SIGKILL; starting it again")
    for _ in range(10):
        assert httpx.post(f"{url}/chat/completions", headers=AUTH, json=question("echo"), timeout=30).status_code == 200
    running.send(signal.SIGTERM)
    assert running.finish(60) == 0
    assert gone(before)
    total = json.loads(penstock("usage", "--json", environment=environment).stdout)["total"]
    assert total["requests"] == 20


def test_several_workers_without_redis_are_refused(tmp_path: Path) -> None:
    done = penstock("serve", "--workers", "2", environment=configuration(tmp_path, ECHO))
    assert done.returncode == 2
    assert "2 workers need Redis" in complaint(done)


def test_an_sqlite_database_is_made_and_postgresql_is_left_to_migrate(
    start: Start, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    environment = configuration(tmp_path, ECHO)
    running, _ = serve(start, environment)
    running.send(signal.SIGTERM)
    assert running.finish(60) == 0
    postgres_server.execute("CREATE DATABASE empty_for_serve")
    environment["DATABASE_URL"] = postgres_server.url("empty_for_serve")
    done = penstock("serve", environment=environment)
    assert done.returncode == 1
    assert "Run `penstock migrate` first" in complaint(done)
    assert penstock("migrate", environment=environment).returncode == 0
    running, _ = serve(start, environment)
    running.send(signal.SIGTERM)
    assert running.finish(60) == 0
    postgres_server.execute("DROP DATABASE empty_for_serve WITH (FORCE)")


def test_a_database_that_does_not_answer_is_one_clear_message(tmp_path: Path) -> None:
    environment = configuration(tmp_path, ECHO) | {"DATABASE_URL": "postgresql://u:very-secret@127.0.0.1:9/d"}
    done = penstock("serve", environment=environment)
    assert done.returncode == 1
    assert "cannot be used" in complaint(done)
    assert "very-secret" not in done.stderr


def test_a_bundled_model_needs_an_engine(tmp_path: Path) -> None:
    bundled = {**ECHO, "provider": None, "engine": "bundled", "weights": "smollm2-135m-instruct"}
    done = penstock("serve", environment=configuration(tmp_path, bundled))
    assert done.returncode == 2
    assert "--engine-url" in complaint(done)


def test_without_a_configuration_it_says_how_to_give_one(tmp_path: Path) -> None:
    done = penstock("serve", environment={"PENSTOCK_DATA_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert "--config or PENSTOCK_CONFIG" in complaint(done)


def test_the_demo_routes_bills_and_agrees_with_its_books(tmp_path: Path) -> None:
    done = penstock("demo", "--json", environment={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ledger"]["ok"] is True
    assert document["usage"]["total"]["requests"] == len(document["requests"]) == 12
    asked = {request["asked"]: request["tier"] for request in document["requests"]}
    assert (asked["auto:quick"], asked["auto:deep"], asked["small"]) == ("economy", "premium", "economy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["table", "json"])
def test_usage_groups_what_was_asked(start: Start, tmp_path: Path, form: str) -> None:
    environment = configuration(tmp_path, ECHO)
    running, url = serve(start, environment)
    assert httpx.post(f"{url}/chat/completions", headers=AUTH, json=question("echo"), timeout=30).status_code == 200
    running.send(signal.SIGTERM)
    assert running.finish(60) == 0
    if form == "table":
        table = penstock("usage", "--group-by", "key_name", environment=environment).stdout.splitlines()
        assert [line.split()[:2] for line in table] == [["key_name", "requests"], ["test", "1"], ["total", "1"]]
    else:
        before = penstock("usage", "--until", "2020-01-01", "--json", environment=environment)
        assert json.loads(before.stdout)["total"]["requests"] == 0
        wrong = penstock("usage", "--group-by", "colour", environment=environment)
        assert wrong.returncode == 2
        assert "'colour' is not a group" in complaint(wrong)
