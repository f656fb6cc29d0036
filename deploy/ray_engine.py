"""Replicas of the bundled engine on a Ray cluster: Ray Serve places, watches and restarts them, the gateway chooses among them.

    python -m deploy.ray_engine --model smollm2-135m-instruct --replicas 2 --port 8200

Each replica is an application of its own, bound to one machine, and answers on a port of its own: the gateway has to choose, as
it sends a conversation where its beginning is cached (`engine:` with the list of URLs that this prints), and must see at once
that a replica is gone, where Ray's proxy would keep requests waiting for the next one. It runs with the options of `python -m
local_engine serve` and their defaults. A replica whose engine has failed is unhealthy and is started anew; one that is taken
away finishes its open answers first. Needs the extra `distributed`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import ray
import uvicorn
from ray import serve

from local_engine.cli_options import hub_of, model_options, shared_options
from local_engine.config import EngineConfig
from local_engine.loading import load_engine, warm_up
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.model_files import Hub, resolve_model, sampling_defaults
from local_engine.serve_options import engine_config, serve_options
from local_engine.server import Service, create_app

HEALTH_SECONDS = 5.0
LAST_WORDS_SECONDS = 5.0
"""Beyond the drain, for the error events of answers that were cut."""


@dataclass(frozen=True, slots=True)
class Options:
    """What every replica runs. `threads` 0 leaves torch's choice; `weights_dir` is a folder of each machine."""

    model: str
    served_name: str
    hub: Hub
    weights_dir: Path
    engine: EngineConfig
    threads: int
    api_key: str | None
    max_body_bytes: int
    drain_seconds: int


class EngineReplica:
    """One engine and its server in an actor of Ray. It counts as started when its model is loaded."""

    def __init__(self, options: Options, host: str, port: int) -> None:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        listener = socket.create_server((host, port))
        files = resolve_model(options.model, options.weights_dir.expanduser(), options.hub)
        engine = load_engine(files.path, options.engine)
        warm_up(engine)
        self._loop = EngineLoop(engine, EngineMetrics(options.served_name))
        self._loop.start()
        self._service = Service(
            options.served_name,
            options.api_key,
            options.max_body_bytes,
            status="ready",
            loop=self._loop,
            sampling=sampling_defaults(files.path),
        )
        self._drain_seconds = options.drain_seconds
        self._server = uvicorn.Server(
            uvicorn.Config(create_app(self._service), log_level="warning", access_log=False, lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def check_health(self) -> None:
        """Ray asks every few seconds; what raises is replaced."""
        if not (self._loop.alive and self._thread.is_alive()):
            raise RuntimeError(self._loop.failure or "the engine has stopped")

    def __del__(self) -> None:
        """Ray takes the replica away: nothing new is taken, open answers end, what is left gets an error event."""
        if not hasattr(self, "_thread"):
            return  # the constructor failed
        self._service.status = "draining"
        self._server.should_exit = True
        self._thread.join(self._drain_seconds)
        self._loop.stop()
        self._thread.join(LAST_WORDS_SECONDS)


def run_replicas(
    options: Options, name: str, replicas: int, *, host: str, port: int, cpus: float, gpus: float
) -> list[str]:
    """Start them on the cluster that Ray is connected to, machine by machine in turn, and wait until all serve.

    Returns their base URLs. A replica stays on its machine, so that its URL stays true.
    """
    serve.start(proxy_location="Disabled")
    machines = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
    urls = []
    for number in range(replicas):
        machine = machines[number % len(machines)]
        deployment = serve.deployment(
            EngineReplica,
            name="engine",
            num_replicas=1,
            ray_actor_options={
                "num_cpus": cpus,
                "num_gpus": gpus,
                "resources": {f"node:{machine}": 0.001},
                "runtime_env": {"env_vars": {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}},
            },
            graceful_shutdown_timeout_s=options.drain_seconds + 2 * LAST_WORDS_SECONDS,
            health_check_period_s=HEALTH_SECONDS,
        )
        application = deployment.bind(options, host, port + number)
        serve.run(application, name=f"{name}-{number}", route_prefix=None)
        reached = machine if host in ("0.0.0.0", "::") else host  # noqa: S104
        urls.append(f"http://{reached}:{port + number}/v1")
    return urls


@click.command()
@model_options
@shared_options
@click.option("--replicas", type=click.IntRange(min=1), default=2, show_default=True, help="How many engines.")
@click.option("--name", default="engine", show_default=True, help="First part of the applications' names.")
@click.option("--address", default=None, help="A running cluster, or `auto`.  [default: start one on this machine]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address they listen on; 0.0.0.0 on a cluster.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8200,
    show_default=True,
    help="Port of the first; the others follow.",
)
@click.option("--cpus", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Cores of each replica.")
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, show_default=True, help="GPUs of each replica.")
@serve_options
def main(
    replicas: int, name: str, address: str | None, host: str, port: int, cpus: float, gpus: float, **chosen: Any
) -> None:
    """Run replicas of the engine on a Ray cluster until SIGTERM or Ctrl-C; the other options are those of `serve`."""
    options = replica_options(**chosen)
    ray.init(address=address, include_dashboard=False, log_to_driver=False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which has a handler of its own
        signal.signal(number, lambda *_: stop.set())
    try:
        for url in run_replicas(options, name, replicas, host=host, port=port, cpus=cpus, gpus=gpus):
            click.echo(f"serving {options.served_name} at {url}")
        stop.wait()
        for number in range(replicas):
            serve.delete(f"{name}-{number}")
        serve.shutdown()
    finally:
        ray.shutdown()


def replica_options(model: str, served_name: str | None, hub_url: str, **chosen: Any) -> Options:
    """What each replica runs, from the options of `serve`. Raises UsageError where they do not go together."""
    engine = engine_config(chosen)
    return Options(model=model, served_name=served_name or model, hub=hub_of(hub_url), engine=engine, **chosen)


if __name__ == "__main__":
    main(prog_name="python -m deploy.ray_engine")
