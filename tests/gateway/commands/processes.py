"""Programs as processes: started in a session of their own, read line by line, and never left behind."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@dataclass
class Running:
    """A process whose standard output and error arrive as one list of lines."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _arriving: "queue.Queue[str | None]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """The next line that holds `text`; fails when the output ends or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._arriving.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                pytest.fail(f"no line with {text!r} within {seconds} s; so far:\n" + "\n".join(self.lines))
            if line is None:
                pytest.fail(f"the output ended without {text!r}; it was:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if text in line:
                return line

    def see(self, text: str, seconds: float = 60.0) -> str:
        """The first line that holds `text`, of those that have come or of those to come."""
        return next((line for line in self.lines if text in line), None) or self.wait_for(text, seconds)

    def finish(self, seconds: float = 60.0) -> int:
        """Wait for the end and for the rest of the output; the exit code."""
        code = self.process.wait(timeout=seconds)
        while (line := self._arriving.get(timeout=60)) is not None:
            self.lines.append(line)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send one signal to the process itself."""
        self.process.send_signal(number)


Start = Callable[..., Running]


@contextmanager
def starting() -> Iterator[Start]:
    """Gives what starts `python ARGUMENTS...` with changed environment variables; kills at the end what is left."""
    running: list[Running] = []

    def start(*arguments: str, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> Running:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env={**clean_environment(), **(environment or {})},
            start_new_session=True,
        )
        running.append(Running(process))
        return running[-1]

    try:
        yield start
    finally:
        for each in running:
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait(timeout=60)
            each.reader.join(timeout=60)
            assert each.process.stdout is not None
            each.process.stdout.close()


def clean_environment() -> dict[str, str]:
    """This environment without what would configure Penstock, and with few threads: tests share the machine."""
    ours = ("PENSTOCK_", "OPENAI_", "DATABASE_URL", "REDIS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(pids: list[int], seconds: float = 60.0) -> bool:
    """Whether all of these processes end within the time."""
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def penstock(
    *arguments: str, environment: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env={**clean_environment(), **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says; fails unless that is a message for a person, and nothing but it."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("penstock: ")
    return done.stderr
