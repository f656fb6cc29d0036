"""Runs child processes: prefixed output, health, restart with backoff, ordered stop; none outlives the supervisor.

A child that ends before it was ever ready ends the start with StartupError. After that a child that dies is started
again, after 0.5 s at first and at most 30 s, counted anew once it has been ready for 30 s. Every child leads a process
group of its own, so a terminal's Ctrl-C reaches the supervisor alone, which then stops the children stage by stage:
SIGTERM, a grace period, SIGKILL. A guardian process kills the groups if the supervisor itself is killed.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.errors import StartupError

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
STEADY_SECONDS = 30.0
STARTING_POLL, POLL_TIMEOUT = 0.1, 5.0
WORD_EVERY = 15.0
MISSED_POLLS = 6
"""A watched child that misses this many polls in a row is hung, and is killed."""
NOT_STARTED = 127

Say = Callable[[str, str], None]
"""Takes a child's name and one line of its output, or of the supervisor's words about it."""


@dataclass(frozen=True, slots=True)
class Program:
    """One child: what to run, how to see that it is ready (status 200 at `ready_url`), how long it may take to stop.

    With `watch_seconds` it must go on answering there: it is asked this often and has this long to answer. `descriptors`
    are inherited open files.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    descriptors: tuple[int, ...] = ()
    ready_url: str | None = None
    watch_seconds: float | None = None
    grace: float = 10.0


class Supervisor:
    """Runs programs until SIGINT, SIGTERM or SIGHUP. `stages` are started together and stopped one after the other.

    `on_child_ready` is called with a child's name when it is ready for the first time.
    """

    def __init__(
        self, stages: Sequence[Sequence[Program]], say: Say, on_child_ready: Callable[[str], None] = lambda name: None
    ) -> None:
        self._guardian = Guardian()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stages = [
            [_Child(each, self._guardian, self._stop, say, on_child_ready) for each in stage] for stage in stages
        ]

    async def run(self, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        """Start everything, call `on_ready` when all are ready, and return when all have stopped.

        `on_stop` is called once before the first child is stopped. Raises StartupError when a child ends, or the
        guardian cannot start, before everything was ready; whatever runs is stopped then too.
        """
        children = [child for stage in self._stages for child in stage]
        keepers: list[asyncio.Task[None]] = []
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
            self._guardian.start()
            keepers = [asyncio.create_task(child.keep()) for child in children]
            await _first_of(self._stop.wait(), _all_ready(children), *keepers)
            if not self._stop.is_set():
                on_ready()
                await _first_of(self._stop.wait(), *keepers)
        finally:
            self._stop.set()
            on_stop()
            for stage in self._stages:
                await asyncio.gather(*(child.stop(self._hurry) for child in stage))
            await asyncio.gather(*keepers, return_exceptions=True)
            self._guardian.close()

    def _on_signal(self) -> None:
        """The first signal stops in order, a second one kills at once."""
        (self._hurry if self._stop.is_set() else self._stop).set()


class Guardian:
    """The process that kills the registered process groups when this process is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; a script run by path in isolated mode, so that it costs a few megabytes."""
        script = str(Path(__file__).with_name("guardian.py"))
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        """Kill this process group if the supervisor dies."""
        self._tell(group)

    def remove(self, group: int) -> None:
        """This process group has ended; its id may be given to somebody else."""
        self._tell(-group)

    def close(self) -> None:
        """End it. Groups that are still registered are killed."""
        if self._process is not None:
            self._process.communicate()

    def _tell(self, number: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # somebody killed the guardian; supervision itself goes on
                self._process.stdin.write(b"%d\n" % number)
                self._process.stdin.flush()


class _Child:
    """One program over all its restarts."""

    def __init__(
        self, program: Program, guardian: Guardian, stop: asyncio.Event, say: Say, on_ready: Callable[[str], None]
    ) -> None:
        self.program = program
        self.ready = asyncio.Event()
        self._guardian = guardian
        self._stop = stop
        self._say = say
        self._on_ready = on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._ready_since: float | None = None

    async def keep(self) -> None:
        """Run the program again and again until told to stop."""
        name, delay = self.program.name, FIRST_DELAY
        while not self._stop.is_set():
            code = await self._run_once()
            if self._stop.is_set():
                return
            ended = f"{name} ended with {_describe_exit(code)}"
            if not self.ready.is_set():
                raise StartupError(f"{ended} while it was starting; its output above says why.")
            if self._ready_since is not None and time.monotonic() - self._ready_since >= STEADY_SECONDS:
                delay = FIRST_DELAY
            self._say(name, f"{ended}; starting it again in {delay:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM; SIGKILL to its whole group after the grace period, or at once when in a hurry."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        ended, hurried = asyncio.create_task(process.wait()), asyncio.create_task(hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=self.program.grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            self._say(self.program.name, "did not stop in time and is killed")
            _kill_group(process.pid)
        await ended

    async def _run_once(self) -> int:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.program.command,
                env=self.program.environment,
                pass_fds=self.program.descriptors,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._pass_on(str(error).encode())
            return NOT_STARTED
        self._process, self._ready_since = process, None
        self._guardian.add(process.pid)
        if self._stop.is_set():  # told to stop while it was being started
            _kill_group(process.pid)
        assert process.stdout is not None
        output = asyncio.create_task(self._forward(process.stdout))
        health = asyncio.create_task(self._watch_health(process))
        try:
            code = await process.wait()
        finally:
            health.cancel()
            _kill_group(process.pid)  # what it may have started itself
            self._guardian.remove(process.pid)
            await asyncio.wait({output}, timeout=1.0)
            output.cancel()
        return code

    async def _forward(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
            for line in lines:
                self._pass_on(line)
        self._pass_on(rest)

    def _pass_on(self, line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip():
            self._say(self.program.name, text)

    async def _watch_health(self, process: asyncio.subprocess.Process) -> None:
        """Set `ready` at the first good answer; afterwards kill a watched program that has stopped answering."""
        if self.program.ready_url is None:
            self._is_ready()
            return
        missed, pause, next_word = 0, STARTING_POLL, time.monotonic() + WORD_EVERY
        async with httpx.AsyncClient(timeout=POLL_TIMEOUT, trust_env=False) as client:
            while missed < MISSED_POLLS:
                trouble = await _trouble(client, self.program.ready_url)
                if trouble is None:
                    missed = 0
                    self._is_ready()
                    if self.program.watch_seconds is None:
                        return
                    pause = client.timeout = self.program.watch_seconds
                elif self._ready_since is not None:
                    missed += 1
                elif time.monotonic() >= next_word:
                    next_word += WORD_EVERY
                    self._say(self.program.name, f"is still starting: {trouble}")
                await asyncio.sleep(pause)
        self._say(self.program.name, f"is hung and is killed: {trouble}")
        _kill_group(process.pid)

    def _is_ready(self) -> None:
        if not self.ready.is_set():
            self.ready.set()
            self._on_ready(self.program.name)
        if self._ready_since is None:
            self._ready_since = time.monotonic()


async def _trouble(client: httpx.AsyncClient, url: str) -> str | None:
    """None when `url` answers 200, else what it does instead."""
    try:
        reply = await client.get(url)
    except httpx.HTTPError as error:
        return f"{url} gives no answer ({type(error).__name__})"
    return None if reply.status_code == 200 else f"{url} answers {reply.status_code}: {reply.text[:300]}"


async def _all_ready(children: Sequence[_Child]) -> None:
    await asyncio.gather(*(child.ready.wait() for child in children))


async def _first_of(*waits: Awaitable[object]) -> None:
    """Wait until one of the awaitables is done, and raise what it raised. Tasks given are left running."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, wait in zip(tasks, waits, strict=True):
        if task is not wait:
            task.cancel()
    for task in done:
        task.result()


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _describe_exit(code: int) -> str:
    """`exit code 1`, or the name of the signal that ended it."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
