"""The gateways that are measured side by side: how each is installed, configured, started and asked."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from benchmarks.processes import ServerFailedError, free_port
from benchmarks.results_file import ROOT

PeerName = Literal["direct", "relay", "penstock", "penstock auto", "litellm", "portkey"]
PEERS: tuple[PeerName, ...] = get_args(PeerName)

FILES = ROOT / "benchmarks" / "gateway"
INSTALLED = ROOT / ".cache" / "bench"
LITELLM = INSTALLED / "litellm" / "bin"
PORTKEY = INSTALLED / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Peer:
    """One row of the table. Two peers with one `server` share a process; an empty command means no gateway at all."""

    name: PeerName
    server: str
    port: int
    version: str
    model: str = MODEL
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def root(self) -> str:
        """Where its server listens."""
        return f"http://127.0.0.1:{self.port}"


def build(names: tuple[PeerName, ...], upstream_port: int, folder: Path) -> list[Peer]:
    """The peers by name, with their configuration written to `folder`. Raises ServerFailedError for one not installed."""
    upstream = f"http://127.0.0.1:{upstream_port}/v1"
    penstock_port = free_port()
    makers = {
        "direct": lambda: Peer("direct", "nginx", upstream_port, nginx_version(), note="no gateway"),
        "relay": lambda: relay(upstream),
        "penstock": lambda: penstock("penstock", MODEL, penstock_port, upstream, folder),
        "penstock auto": lambda: penstock("penstock auto", "auto", penstock_port, upstream, folder),
        "litellm": lambda: litellm(upstream, folder),
        "portkey": portkey,
    }
    return [makers[name]() for name in names]


def relay(upstream: str) -> Peer:
    """The floor: uvicorn and aiohttp, no key, no metering, no money."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(FILES), "relay:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "error"]
    versions = f"uvicorn {importlib.metadata.version('uvicorn')}, aiohttp {importlib.metadata.version('aiohttp')}"
    return Peer("relay", "relay", port, versions, command=command, environment={"BENCH_UPSTREAM": upstream})


def penstock(name: PeerName, model: str, port: int, upstream: str, folder: Path) -> Peer:
    """Penstock with everything a paying tenant has: key, limits, budgets, router, metering, spool, SQLite ledger."""
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump(penstock_config(upstream)), encoding="utf-8")
    environment = {
        "PENSTOCK_HOST": "127.0.0.1",
        "PENSTOCK_PORT": str(port),
        "PENSTOCK_DATA_DIR": str(folder / "penstock-data"),
        "PENSTOCK_WORKERS": "1",
        "PENSTOCK_LOG_LEVEL": "warning",
        "PENSTOCK_ADMIN_KEY": KEY + "-admin",
        "BENCH_KEY": KEY,
    }
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    version = importlib.metadata.version("penstock")
    return Peer(name, "penstock", port, version, model, command, environment, "keys, limits, budgets, ledger on")


def penstock_config(upstream: str) -> dict[str, Any]:
    """One key with limits and budgets too wide to refuse anything, and two tiers at the same upstream."""
    at_upstream = {"provider": "openai", "base_url": upstream, "api_key": "sk-upstream"}
    return {
        "tenants": [{"name": "bench", "budget": {"limit_usd": 1_000_000, "period": "month"}}],
        "keys": [
            {
                "key": "env:BENCH_KEY",
                "name": "bench",
                "tenant": "bench",
                "limits": {"requests_per_minute": 10**8, "tokens_per_minute": 10**11, "parallel": 10**4},
                "budget": {"limit_usd": 1_000_000, "period": "day"},
            }
        ],
        "models": [
            {"name": MODEL, "tier": "economy", "price": {"input": 0.15, "output": 0.6, "cached_input": 0.075}}
            | at_upstream,
            {"name": "gpt-4o", "tier": "premium", "price": {"input": 2.5, "output": 10, "cached_input": 1.25}}
            | at_upstream,
        ],
    }


def litellm(upstream: str, folder: Path) -> Peer:
    """LiteLLM's proxy, one worker, from its own virtual environment."""
    if not (LITELLM / "litellm").exists():
        raise ServerFailedError("LiteLLM is not installed: run this benchmark once with --install-peers.")
    port = free_port()
    text = (FILES / "litellm.yaml").read_text(encoding="utf-8").replace("UPSTREAM", upstream).replace("KEY", KEY)
    config = folder / "litellm.yaml"
    config.write_text(text, encoding="utf-8")
    command = [str(LITELLM / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return Peer(
        "litellm",
        "litellm",
        port,
        _litellm_version(),
        command=[*command, "--num_workers", "1"],
        environment=environment,
    )


def portkey() -> Peer:
    """Portkey's open gateway on Node; it has no keys, budgets or metering of its own."""
    start = PORTKEY / "build" / "start-server.js"
    if not start.exists():
        raise ServerFailedError("Portkey is not installed: run this benchmark once with --install-peers.")
    port = free_port()
    version = json.loads((PORTKEY / "package.json").read_text(encoding="utf-8"))["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    command = ["node", str(start), f"--port={port}", "--headless"]
    return Peer(
        "portkey", "portkey", port, f"{version}, node {node}", command=command, environment={"NODE_ENV": "production"}
    )


def install() -> None:
    """Install LiteLLM and Portkey under .cache/bench (ignored by git) where they are not there yet."""
    if not (LITELLM / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(INSTALLED / "litellm")], check=True)
        subprocess.run([str(LITELLM / "pip"), "install", "--quiet", "litellm[proxy]"], check=True)
    if not PORTKEY.exists():
        if shutil.which("npm") is None:
            raise ServerFailedError("not installed: npm (apt-get install -y nodejs npm)")
        folder = INSTALLED / "portkey"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "@portkey-ai/gateway"], cwd=folder, check=True)


def nginx_version() -> str:
    """The upstream and its version, as it names itself: nginx/1.22.1."""
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition(" ")[2]


def _litellm_version() -> str:
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    command = [str(LITELLM / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
