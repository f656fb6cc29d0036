"""Servers and loads of the overhead benchmark: nginx and every gateway started, asked once, then loaded with wrk."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import peers
from benchmarks.peers import KEY, Peer, PeerName
from benchmarks.processes import Server, ServerFailedError, free_port, start

READY_PATHS = {"penstock": "/health/live", "litellm": "/health/liveliness"}
START_SECONDS = 120.0
SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class Cores:
    """Which core the gateway has, and which the upstream and the load share."""

    gateway: int
    load: int


@dataclass(frozen=True)
class Bench:
    """Everything started: the upstream and the gateways by server name."""

    cores: Cores
    folder: Path
    upstream_port: int
    servers: dict[str, Server]


@dataclass(frozen=True)
class Load:
    """One load on one gateway. Times in ms; `settle_s` is how long the gateway worked on after the load had ended."""

    peer: PeerName
    connections: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    memory_mib: float
    settle_s: float
    upstream_calls: int


@contextlib.contextmanager
def started(names: tuple[PeerName, ...]) -> Iterator[tuple[Bench, list[Peer]]]:
    """Start nginx and the gateways in a temporary folder; stop all of them at the end, whatever happened."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise ServerFailedError(f"this benchmark needs two cores, this process may use {usable!r}")
    cores = Cores(usable[0], usable[1])
    with tempfile.TemporaryDirectory(prefix="gateway-overhead-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        config = (peers.FILES / "nginx.conf").read_text(encoding="utf-8").replace("PORT", str(port))
        (folder / "nginx.conf").write_text(config, encoding="utf-8")
        nginx = start("nginx", ["nginx", "-p", str(folder), "-c", "nginx.conf"], {}, cores.load, folder)
        stack.callback(nginx.stop)
        nginx.wait_until_ready(f"http://127.0.0.1:{port}/requests", 10)
        built = peers.build(names, port, folder)
        servers = {"nginx": nginx}
        for peer in built:
            if peer.server not in servers:
                server = start(peer.server, peer.command, peer.environment, cores.gateway, folder)
                stack.callback(server.stop)
                server.wait_until_ready(peer.root + READY_PATHS.get(peer.server, "/"), START_SECONDS)
                servers[peer.server] = server
        yield Bench(cores, folder, port, servers), built


def check_reply(peer: Peer, bench: Bench) -> None:
    """Ask once and compare with what the upstream says. Raises ServerFailedError when the answer is another."""
    headers = {"authorization": f"Bearer {KEY}", "x-portkey-provider": "openai"}
    headers["x-portkey-custom-host"] = f"http://127.0.0.1:{bench.upstream_port}/v1"
    body = {"model": peer.model, "messages": [{"role": "user", "content": "Which city is the capital of France?"}]}
    reply = httpx.post(f"{peer.root}/v1/chat/completions", headers=headers, json=body, timeout=60)
    if reply.status_code != 200:
        raise ServerFailedError(f"{peer.name} answered {reply.status_code}: {reply.text[:500]}")
    truth = httpx.post(f"http://127.0.0.1:{bench.upstream_port}/v1/chat/completions", json=body).json()
    if reply.json()["choices"][0]["message"]["content"] != truth["choices"][0]["message"]["content"]:
        raise ServerFailedError(f"{peer.name} changed the upstream's answer: {reply.text[:500]}")


def put_load(peer: Peer, bench: Bench, connections: int, seconds: int) -> Load:
    """One run of wrk. Raises ServerFailedError when a single request failed."""
    environment = {
        "BENCH_KEY": KEY,
        "BENCH_MODEL": peer.model,
        "BENCH_UPSTREAM": f"http://127.0.0.1:{bench.upstream_port}/v1",
    }
    calls_before = upstream_calls(bench)
    command = ["taskset", "-c", str(bench.cores.load), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["--timeout", "30s", "-s", str(peers.FILES / "chat.lua"), f"{peer.root}/v1/chat/completions"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=seconds + 60, check=False
    )
    if done.returncode != 0:
        raise ServerFailedError(f"wrk failed on {peer.name}: {done.stdout}{done.stderr}")
    counted = json.loads(done.stdout.strip().splitlines()[-1])
    server = bench.servers[peer.server]
    if counted["not_2xx"] or counted["socket_errors"] or not counted["requests"]:
        raise ServerFailedError(f"{peer.name} failed requests: {counted}\n{server.log_tail()}")
    memory = server.memory_mib()
    settle = server.wait_until_idle(SETTLE_SECONDS)
    return Load(
        peer=peer.name,
        connections=connections,
        requests=counted["requests"],
        requests_per_s=round(counted["requests"] / counted["seconds"], 1),
        p50_ms=counted["p50_ms"],
        p90_ms=counted["p90_ms"],
        p99_ms=counted["p99_ms"],
        memory_mib=round(memory, 1),
        settle_s=round(settle, 1),
        upstream_calls=upstream_calls(bench) - calls_before - 1,
    )


def upstream_calls(bench: Bench) -> int:
    """How many requests nginx has answered since it started, this question included."""
    lines = httpx.get(f"http://127.0.0.1:{bench.upstream_port}/requests").text.splitlines()
    return int(lines[2].split()[2])
