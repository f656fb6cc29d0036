"""The gateway of the main job as a process of its own: configured, started, killed, started again, asked by its CLI."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from benchmarks.processes import Server, ServerFailedError, free_port, start, wait_until_gone

Kill = Literal["worker", "supervisor", "everything"]
KILLS: tuple[Kill, ...] = get_args(Kill)
"""The process that serves; the one that watches it (its guardian then ends the rest); all of them at once."""

# USD per 1M tokens: public list prices of such models (DeepInfra for the two Llama models, Anthropic for Claude 3.5
# Sonnet), as litellm's price map of November 2026 has them. The drift answers are priced as their tier, not as 2023.
PRICES: dict[str, dict[str, str]] = {
    "small": {"input": "0.03", "output": "0.05", "cached_input": "0.03", "reasoning": "0.05"},
    "medium": {"input": "0.40", "output": "0.40", "cached_input": "0.20", "reasoning": "0.40"},
    "large": {"input": "3.00", "output": "15.00", "cached_input": "0.30", "reasoning": "15.00"},
}
TIER_OF_MODEL = {"small": "economy", "medium": "standard", "large": "premium"}
MARKUP_PERCENT = 20
SETTLE_SECONDS = 60.0


@dataclass
class Gateway:
    """One gateway with its own data folder; `keys` are the secrets by name, one per arm of the job."""

    folder: Path
    upstream: str
    keys: dict[str, str]
    port: int = field(default_factory=free_port)
    server: Server | None = None

    @property
    def base_url(self) -> str:
        """What a client is pointed at."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def config(self) -> Path:
        """Its penstock.yaml."""
        return self.folder / "penstock.yaml"

    @property
    def data(self) -> Path:
        """Its data folder: database, spool."""
        return self.folder / "data"

    def write_config(self) -> None:
        """Write penstock.yaml; secrets stay in the environment."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(configuration(self.upstream, list(self.keys))), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """What the gateway and its command line read."""
        return {
            "PENSTOCK_CONFIG": str(self.config),
            "PENSTOCK_HOST": "127.0.0.1",
            "PENSTOCK_PORT": str(self.port),
            "PENSTOCK_DATA_DIR": str(self.data),
            "PENSTOCK_LOG_LEVEL": "warning",
            **{_variable(name): secret for name, secret in self.keys.items()},
        }

    def start(self) -> None:
        """Start it and return when it serves. Raises ServerFailedError."""
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.config)]
        self.server = start("gateway", command, self.environment(), None, self.folder)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when it takes requests."""
        assert self.server is not None
        self.server.wait_until_ready(f"http://127.0.0.1:{self.port}/health/ready", 60)

    def kill(self, how: Kill) -> None:
        """kill -9, then see to it that it serves again: `worker` is started anew by its supervisor, the rest by us."""
        assert self.server is not None
        pids = self.server.pids()
        if how == "worker":
            os.kill(self.server.pid_of("gateway worker"), signal.SIGKILL)
        else:
            for pid in pids if how == "everything" else [self.server.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.server.process.wait()
            wait_until_gone(pids, 10)
            self.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """End it politely, if it runs."""
        if self.server is not None:
            self.server.stop()

    def ask(self, *arguments: str) -> dict[str, Any]:
        """`penstock ARGUMENTS --json` while it runs. Raises ServerFailedError when it says anything but one document."""
        done = self.command(*arguments)
        try:
            document: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            said = f"penstock {' '.join(arguments)} --json ended with {done.returncode}: {done.stdout}{done.stderr}"
            raise ServerFailedError(said) from None
        return document

    def settle(self) -> dict[str, Any]:
        """Wait until everything metered is in the ledger and no hold is open (60 s at most); `ledger verify` says then."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            verified = self.ask("ledger", "verify")
            done = not verified["undelivered_records"] and not verified["open_holds"]
            if done or time.monotonic() > deadline:
                return verified
            time.sleep(0.5)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, with its exit status."""
        command = [sys.executable, "-m", "gateway", *arguments, "--json"]
        environment = {**os.environ, **self.environment()}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.folder, timeout=120, check=False
        )


def configuration(upstream: str, keys: list[str]) -> dict[str, Any]:
    """penstock.yaml: three tiers at the replay upstream, one key per arm, a tenant that pays a markup."""
    models = [
        {"name": name, "tier": TIER_OF_MODEL[name], "provider": "openai", "base_url": upstream, "api_key": "sk-replay"}
        | {"price": {kind: float(price) for kind, price in prices.items()}}
        for name, prices in PRICES.items()
    ]
    return {
        "tenants": [
            {
                "name": "job",
                "budget": {"limit_usd": 1000, "period": "month"},
                "price_plan": {"markup_percent": MARKUP_PERCENT},
            }
        ],
        "keys": [
            {"key": f"env:{_variable(name)}", "name": name, "tenant": "job", "limits": {"parallel": 64}}
            for name in keys
        ],
        "models": models,
    }


def pico_per_token(model: str, kind: str) -> int:
    """The price of one token in pico-USD; exact, because prices per 1M tokens have at most six decimals."""
    return int(Decimal(PRICES[model][kind]) * 10**6)


def _variable(key_name: str) -> str:
    return f"JOB_KEY_{key_name.upper().replace(' ', '_').replace('-', '_')}"
