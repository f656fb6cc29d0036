"""The bundled engine as a process: its weights fetched, its command line made. Nothing of it is imported here."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from gateway.commands.configuration import ENGINE_KEY, Bundled
from gateway.commands.data_folder import DataFolder
from gateway.commands.listen import free_port
from gateway.errors import StartupError
from gateway.settings import environment_for_child
from gateway.supervise import Guardian, Program

GRACE = 10.0
"""Seconds. The gateway has stopped before, so no answer is open any more."""

WATCH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """The engine to run, where it will answer (`url` ends in /v1), and the key it will ask for."""

    program: Program
    url: str
    key: str = field(repr=False)


def plan_engine(bundled: Bundled, folder: DataFolder) -> EnginePlan:
    """Make sure the weights are there and choose a free port and a key. Raises StartupError saying what to do."""
    check_engine_installed()
    path = fetch_weights(bundled.weights, folder)
    port, key = free_port(), secrets.token_urlsafe(32)
    command = (
        *(sys.executable, "-m", "local_engine", "serve", "--model", str(path), "--served-name", bundled.upstream_model),
        *("--weights-dir", str(folder.weights), "--host", "127.0.0.1", "--port", str(port)),
        *bundled.options,
    )
    program = Program(
        name="engine",
        command=command,
        environment=environment_for_child(**{ENGINE_KEY: key, "PYTHONUNBUFFERED": "1"}),
        ready_url=f"http://127.0.0.1:{port}/health",
        watch_seconds=WATCH_SECONDS,
        grace=GRACE,
    )
    return EnginePlan(program, f"http://127.0.0.1:{port}/v1", key)


def fetch_weights(name: str, folder: DataFolder) -> Path:
    """Bring the weights to this machine; progress bars and reasons for failing appear on the terminal as they come."""
    command = [sys.executable, "-m", "local_engine", "fetch", name, "--weights-dir", str(folder.weights), "--json"]
    guardian = Guardian()
    guardian.start()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603
    try:
        guardian.add(process.pid)
        output, _ = process.communicate()
        guardian.remove(process.pid)
    finally:
        guardian.close()  # after Ctrl-C, or when this process is killed, a download that goes on is killed
    if process.returncode != 0:
        raise StartupError(
            f"the weights {name!r} of the bundled engine are not on this machine and could not be fetched; "
            "the message above says why. Give `weights` in the configuration the path of a .gguf file or a model "
            "folder, or start without the engine: --no-engine."
        )
    return Path(json.loads(output)["path"])


def check_engine_installed() -> None:
    """Refuse to go on without the packages of the `engine` extra."""
    if find_spec("torch") is None:
        raise StartupError(
            "the bundled engine is not installed. Install it with `pip install 'penstock[engine]'`, "
            "or start without it: --no-engine."
        )
