"""`python -m local_engine serve` as a process of its own, for tests that signal or kill it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
SERVE = (sys.executable, "-m", "local_engine", "serve")


class ServeProcess:
    """A running `serve`; everything it wrote so far is in `lines`."""

    def __init__(self, *arguments: str, program: Sequence[str] = SERVE) -> None:
        command = [*program, "--threads", "1", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # for a program elsewhere
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read_on, daemon=True)

    def wait_until_serving(self) -> str:
        """Its base URL, once it says where it serves."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"serving .* at (http://\S+)/v1", line):
                self.reader.start()
                return found[1]
        raise AssertionError("".join(self.lines))

    def _read_on(self) -> None:
        assert self.process.stdout is not None
        self.lines += list(self.process.stdout)

    def end(self) -> tuple[int, str]:
        """Exit status and all output, for a process that ends by itself."""
        out, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out


@contextmanager
def serving(*arguments: str, program: Sequence[str] = SERVE) -> Iterator[ServeProcess]:
    """Start it, and kill it at the end if it still runs."""
    started = ServeProcess(*arguments, program=program)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait(SECONDS)
        assert started.process.stdout is not None
        started.process.stdout.close()
