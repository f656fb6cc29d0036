"""Servers under test as child processes: pinned to a core, measured with their children, stopped by pid (Linux only)."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE_SHARE = 0.03  # of one core: below it a server has nothing left to do


class ServerFailedError(Exception):
    """A server did not start, or stopped by itself; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Server:
    """A running server and all the processes it started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        """The server's process and its descendants."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += [int(child) for child in _read(children).split()]
        return found

    def pid_of(self, words: str) -> int:
        """The one process of it with `words` in its command line. Raises ServerFailedError when there is no such one."""
        lines = {pid: _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ") for pid in self.pids()}
        found = [pid for pid, line in lines.items() if words in line]
        if len(found) != 1:
            raise ServerFailedError(f"{self.name}: {len(found)} processes with {words!r} among {lines!r}")
        return found[0]

    def memory_mib(self) -> float:
        """Resident memory of all its processes."""
        pages = [_read(Path(f"/proc/{pid}/statm")).split() for pid in self.pids()]
        return sum(int(fields[1]) for fields in pages if fields) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """User and system time of all its processes."""
        stats = [_read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() for pid in self.pids()]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats if fields) / TICKS_PER_SECOND

    def cores(self) -> list[int]:
        """The cores that any of its processes may use."""
        return sorted(set().union(*(os.sched_getaffinity(pid) for pid in self.pids())))

    def wait_until_ready(self, url: str, seconds: float) -> None:
        """Return when `url` answers anything but 503. Raises ServerFailedError after `seconds` or when the process ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailedError(f"{self.name} ended with {self.process.returncode}.\n{self.log_tail()}")
            try:
                if httpx.get(url, timeout=2).status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise ServerFailedError(f"{self.name} did not answer at {url} within {seconds} s.\n{self.log_tail()}")

    def wait_until_idle(self, seconds: float) -> float:
        """Wait until its processes rest (work left over from a load is done); returns the seconds that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            before, at = self.cpu_seconds(), time.monotonic()
            time.sleep(0.5)
            if (self.cpu_seconds() - before) / (time.monotonic() - at) < IDLE_SHARE:
                return max(0.0, at - started)
        return seconds

    def stop(self) -> None:
        """Ask it to end; whatever of it still runs ten seconds later, or outlives it by two, is killed."""
        pids = self.pids()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=10)
            wait_until_gone(pids, 2)
        except (subprocess.TimeoutExpired, ServerFailedError):
            for pid in pids:
                _kill(pid)
            self.process.wait()

    def log_tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def start(name: str, command: list[str], environment: dict[str, str], core: int | None, folder: Path) -> Server:
    """Start `command` with `environment` added to ours, on one core if given; it writes to `folder`/NAME.log."""
    log = folder / f"{name.replace(' ', '-')}.log"
    pinned = ["taskset", "-c", str(core), *command] if core is not None else command
    with log.open("ab") as output:
        process = subprocess.Popen(
            pinned,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            cwd=folder,
        )
    return Server(name, process, log)


def wait_until_gone(pids: list[int], seconds: float) -> None:
    """Return when none of `pids` runs. Raises ServerFailedError naming those that still do after `seconds`."""
    deadline = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if _runs(pid)]
    if left:
        raise ServerFailedError(f"processes {left!r} outlived their parent by {seconds} s")


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require(*programs: str) -> None:
    """Raise ServerFailedError naming the programs that are missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise ServerFailedError(f"not installed: {', '.join(missing)} (apt-get install -y wrk nginx-light util-linux)")


def _read(path: Path) -> str:
    """The text of a file under /proc; empty when the process ended in between."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not collected yet does not."""
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
