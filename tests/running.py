"""Real processes for end-to-end tests: a gateway from a configuration, and scripted upstreams, on free ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

KEY = "sk-test-0123456789abcdef"
ADMIN_KEY = "admin-test-0123456789abcdef"
START_SECONDS = 60


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Gateway:
    """A running `penstock serve` with its data folder; `log` is everything it wrote."""

    url: str
    data_dir: Path
    config: Path
    port: int
    process: subprocess.Popen[bytes]
    log_file: Path
    extra_environment: dict[str, str] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """What an OpenAI client is pointed at."""
        return f"{self.url}/v1"

    @property
    def log(self) -> str:
        """Standard output and error of all its processes so far."""
        return self.log_file.read_text(errors="replace")

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `penstock ...` against the same data folder."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def json(self, *arguments: str, check: bool = True) -> Any:
        """The JSON document that a command prints."""
        return json.loads(self.command(*arguments, "--json", check=check).stdout)

    def admin(self, path: str) -> Any:
        """A document of the admin API."""
        reply = httpx.get(f"{self.url}/admin/api/{path}", headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def event(self, request_id: str) -> dict[str, Any]:
        """One metered request, once it has arrived in the database."""
        deadline = time.monotonic() + 60
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        while True:
            reply = httpx.get(f"{self.url}/admin/api/requests/{request_id}", headers=headers, timeout=30)
            if reply.status_code == 200:
                event: dict[str, Any] = reply.json()
                return event
            assert time.monotonic() < deadline, f"{request_id} never arrived: {reply.text}\n{self.log}"
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        return {
            **os.environ,
            "PENSTOCK_CONFIG": str(self.config),
            "PENSTOCK_DATA_DIR": str(self.data_dir),
            "PENSTOCK_ADMIN_KEY": ADMIN_KEY,
            "PENSTOCK_HOST": "127.0.0.1",
            "PENSTOCK_PORT": str(self.port),
            **self.extra_environment,
        }

    def start(self) -> None:
        """Start (again) and wait until it is ready."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, f"the gateway ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the gateway did not become ready:\n{self.log}"
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 of the gateway with everything it started, as a machine that goes down would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=20)

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        finally:
            if self.process.poll() is None:
                self.kill()


@contextmanager
def gateway(folder: Path, config: dict[str, Any], **environment: str) -> Iterator[Gateway]:
    """Run a gateway with this configuration; a key `KEY` of the tenant `default` exists unless it names keys itself."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "penstock.yaml"
    path.write_text(yaml.safe_dump({"keys": [{"key": KEY, "name": "test"}], **config}))
    port = free_port()
    running = Gateway(
        url=f"http://127.0.0.1:{port}",
        data_dir=folder / "data",
        config=path,
        port=port,
        process=subprocess.Popen(["true"]),
        log_file=folder / "gateway.log",
        extra_environment=environment,
    )
    running.process.wait()
    running.start()
    try:
        yield running
    finally:
        running.stop()


@dataclass
class Upstream:
    """A running scripted server."""

    url: str

    def calls(self) -> dict[str, Any]:
        """What it was asked and what it delivered, per model."""
        calls: dict[str, Any] = httpx.get(self.url.removesuffix("/v1") + "/scripted/calls", timeout=60).json()
        return calls


@contextmanager
def upstream(scripts: dict[str, Any]) -> Iterator[Upstream]:
    """A scripted upstream over HTTP: model name -> script."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gateway.providers.scripted_server",
            "--port",
            "0",
            "--script",
            json.dumps({"models": scripts}),
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]
        yield Upstream(f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


def model(name: str, tier: str, base_url: str, **changes: Any) -> dict[str, Any]:
    """A configured model at an upstream: 1 USD per million input, 2 per million output tokens."""
    return {
        "name": name,
        "tier": tier,
        "provider": "openai",
        "base_url": base_url,
        "api_key": "sk-provider-secret-0123456789",
        "price": {"input": 1, "output": 2, "cached_input": 0.1, "reasoning": 4},
        **changes,
    }
