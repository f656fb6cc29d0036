"""The supervisor with real processes: output, readiness, restart, order of stopping, and nothing left behind."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.listen import free_port
from tests.gateway.commands.processes import Running, Start, alive, gone

SCRIPT = str(Path(__file__).with_name("supervised.py"))
STEADY = "import os, time; print('pid', os.getpid()); time.sleep(600)"
POLITE = """
import signal, sys, time
def leave(*_):
    time.sleep({pause})
    print("said goodbye")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, lambda *_: print("got Ctrl-C"))
print("here")
while True: time.sleep(1)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("pid", os.getpid())
time.sleep(600)
"""
SLOW_TO_ANSWER = """
import http.server, time
begun = time.monotonic()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() - begun > 1
        print("answers", 200 if ready else 503)
        self.send_response(200 if ready else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", {port}), Health).serve_forever()
"""


def supervise(start: Start, *stages: list[dict[str, Any]]) -> Running:
    """Run stages under a supervisor in a process of its own."""
    return start(SCRIPT, json.dumps(stages))


def pid_in(line: str) -> int:
    """The number at the end of a line `name | pid 123`."""
    return int(line.rsplit(" ", 1)[1])


def test_output_carries_the_name_of_the_child_and_a_signal_ends_everything_with_success(start: Start) -> None:
    running = supervise(start, [{"name": "one", "code": POLITE.format(pause=0)}], [{"name": "two", "code": STEADY}])
    other = pid_in(running.see("two | pid"))
    running.see("one | here")
    running.send(signal.SIGTERM)
    assert running.finish() == 0
    assert not alive(other)


def test_stages_stop_one_after_the_other_and_the_door_is_closed_first(start: Start) -> None:
    first, second = (
        {"name": "first", "code": POLITE.format(pause=0.5)},
        {"name": "second", "code": POLITE.format(pause=0)},
    )
    running = supervise(start, [first], [second])
    running.see("first | here")
    running.see("second | here")
    running.send(signal.SIGINT)
    assert running.finish() == 0
    told = [line for line in running.lines if "goodbye" in line or line == "STOPPING"]
    assert told == ["STOPPING", "first | said goodbye", "second | said goodbye"]


def test_ctrl_c_in_the_terminal_reaches_the_supervisor_alone(start: Start) -> None:
    running = supervise(start, [{"name": "one", "code": POLITE.format(pause=0)}])
    running.wait_for("one | here")
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.finish() == 0
    assert "one | said goodbye" in running.lines
    assert "one | got Ctrl-C" not in running.lines


def test_a_child_that_is_killed_is_started_again(start: Start) -> None:
    running = supervise(start, [{"name": "one", "code": STEADY}])
    first = pid_in(running.wait_for("one | pid"))
    os.kill(first, signal.SIGKILL)
    assert "SIGKILL; starting it again in 0.5 s" in running.wait_for("ended")
    second = pid_in(running.wait_for("one | pid"))
    os.kill(second, signal.SIGKILL)
    assert "starting it again in 1 s" in running.wait_for("ended")
    third = pid_in(running.wait_for("one | pid"))
    running.send(signal.SIGTERM)
    assert running.finish() == 0
    assert not alive(third)


def test_a_child_that_ends_before_it_was_ready_ends_the_start(start: Start) -> None:
    port = free_port()
    broken = {
        "name": "bad",
        "code": "print('no such model'); raise SystemExit(3)",
        "ready_url": f"http://127.0.0.1:{port}/",
    }
    running = supervise(start, [broken], [{"name": "good", "code": STEADY}])
    assert running.finish() == 1
    assert "READY" not in running.lines
    assert "bad | no such model" in running.lines
    assert running.lines[-1] == (
        "StartupError: bad ended with exit code 3 while it was starting; its output above says why."
    )


def test_a_program_that_does_not_exist_ends_the_start(start: Start, tmp_path: Path) -> None:
    code = "import asyncio, gateway.supervise as s\n" + (
        f"p = s.Program('ghost', ({str(tmp_path / 'ghost')!r},), {{}}, ready_url='http://127.0.0.1:1/')\n"
        "asyncio.run(s.Supervisor([[p]], print).run(lambda: None, lambda: None))"
    )
    running = start("-c", code)
    assert running.finish() == 1
    assert any("No such file or directory" in line for line in running.lines)


def test_it_is_ready_only_when_the_health_address_answers_200(start: Start) -> None:
    port = free_port()
    child = {"name": "slow", "code": SLOW_TO_ANSWER.format(port=port), "ready_url": f"http://127.0.0.1:{port}/health"}
    running = supervise(start, [child])
    running.wait_for("READY")
    running.send(signal.SIGTERM)
    assert running.finish() == 0
    before = running.lines[: running.lines.index("READY")]
    assert "slow | answers 503" in before
    assert "slow | answers 200" in running.lines


def test_a_watched_child_that_stops_answering_is_killed_and_started_again(start: Start) -> None:
    port = free_port()
    code = SLOW_TO_ANSWER.format(port=port).replace("import http", "import os; print('pid', os.getpid())\nimport http")
    child = {"name": "one", "code": code, "ready_url": f"http://127.0.0.1:{port}/health", "watch_seconds": 0.2}
    running = supervise(start, [child])
    pid = pid_in(running.wait_for("one | pid"))
    running.wait_for("READY")
    os.kill(pid, signal.SIGSTOP)
    assert "gives no answer (ReadTimeout)" in running.wait_for("one | is hung and is killed")
    running.wait_for("ended with SIGKILL; starting it again")
    running.wait_for("one | answers 200")
    running.send(signal.SIGTERM)
    assert running.finish() == 0
    assert not alive(pid)


def test_a_child_that_ignores_the_signal_is_killed_after_its_grace_period(start: Start) -> None:
    running = supervise(start, [{"name": "deaf", "code": STUBBORN, "grace": 0.5}])
    pid = pid_in(running.wait_for("deaf | pid"))
    running.send(signal.SIGTERM)
    assert running.finish() == 0
    assert "deaf | did not stop in time and is killed" in running.lines
    assert not alive(pid)


def test_a_second_signal_does_not_wait_for_the_grace_period(start: Start) -> None:
    running = supervise(start, [{"name": "deaf", "code": STUBBORN, "grace": 600.0}])
    pid = pid_in(running.wait_for("deaf | pid"))
    running.send(signal.SIGTERM)
    running.wait_for("STOPPING")
    running.send(signal.SIGINT)
    assert running.finish(30) == 0
    assert not alive(pid)


@pytest.mark.parametrize("deed", ["kill", "stop"])
def test_nothing_is_left_of_a_child_that_started_processes_itself(start: Start, deed: str) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-u', '-c', {STEADY!r}])"
    running = supervise(start, [{"name": "parent", "code": parent}], [{"name": "other", "code": STUBBORN}])
    pids = [pid_in(running.wait_for("| pid")) for _ in range(2)]
    running.send(signal.SIGKILL if deed == "kill" else signal.SIGTERM)
    if deed == "stop":
        running.wait_for("STOPPING")
        running.send(signal.SIGTERM)
    running.process.wait(timeout=30)
    assert gone(pids)
