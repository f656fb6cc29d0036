"""Replicas of the bundled engine on a Ray cluster: Ray Serve places, watches and restarts them, the gateway chooses among them.

    python -m deploy.ray_engine --model smollm2-135m-instruct --replicas 2 --port 8200

Each replica is an application of its own at /NAME-0, /NAME-1, ..., because the gateway and not Ray has to choose: it sends a
conversation where its beginning is cached (`engine:` with the list of URLs that this prints). A replica whose engine has failed
is unhealthy and is started anew; one that is taken away finishes its open answers first. Needs the extra `distributed`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import ray
from ray import serve
from starlette.applications import Starlette

from local_engine.config import EngineConfig
from local_engine.engine import load_engine, warm_up
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.model_files import DEFAULT_HUB, Hub, resolve_model, sampling_defaults
from local_engine.server import Service, create_app

HEALTH_SECONDS = 5.0
MOST_CALLS = 10_000  # the engine has a bounded queue of its own, which refuses with a reply


@dataclass(frozen=True, slots=True)
class Options:
    """What every replica runs. `threads` 0 leaves torch's choice."""

    model: str
    served_name: str
    engine: EngineConfig
    threads: int = 0
    api_key: str | None = None


class EngineReplica:
    """One engine in an actor of Ray. It counts as started when its model is loaded."""

    def __init__(self, options: Options) -> None:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        files = resolve_model(options.model, Path("~/.penstock/weights").expanduser(), Hub(DEFAULT_HUB))
        engine = load_engine(files.path, options.engine)
        warm_up(engine)
        self._loop = EngineLoop(engine, EngineMetrics(options.served_name))
        self._loop.start()
        self._service = Service(
            options.served_name,
            options.api_key,
            status="ready",
            loop=self._loop,
            sampling=sampling_defaults(files.path),
        )

    def __serve_build_asgi_app__(self) -> Starlette:
        """Ray asks for the application once the constructor is through."""
        return create_app(self._service, self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Ray ends it after the replica's last answer, or after the time it allows for that."""
        yield
        await asyncio.to_thread(self._loop.stop)

    def check_health(self) -> None:
        """Ray asks every few seconds; what raises is replaced."""
        if not self._loop.alive:
            raise RuntimeError(self._loop.failure or "the engine has stopped")


def run_replicas(
    options: Options, name: str, replicas: int, *, port: int, host: str, cpus: float, gpus: float, drain_seconds: float
) -> list[str]:
    """Start them on the cluster that Ray is connected to, and wait until all serve. Returns their paths."""
    serve.start(http_options={"host": host, "port": port})
    paths = [f"/{name}-{number}" for number in range(replicas)]
    for path in paths:
        deployment = serve.deployment(
            serve.ingress()(EngineReplica),
            name="engine",
            num_replicas=1,
            ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
            max_ongoing_requests=MOST_CALLS,
            graceful_shutdown_timeout_s=drain_seconds,
            health_check_period_s=HEALTH_SECONDS,
        )
        serve.run(deployment.bind(options), name=path.removeprefix("/"), route_prefix=path)
    return paths


@click.command()
@click.option("--model", required=True, help="As for `python -m local_engine serve`; every machine needs it.")
@click.option("--served-name", default=None, help="Name clients use as `model`.  [default: the value of --model]")
@click.option("--replicas", type=click.IntRange(min=1), default=2, show_default=True, help="How many engines.")
@click.option("--name", default="engine", show_default=True, help="First part of their paths.")
@click.option("--address", default=None, help="A running cluster, or `auto`.  [default: start one on this machine]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the proxies listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8200, show_default=True, help="Port of the proxies.")
@click.option("--cpus", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Cores of each replica.")
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, show_default=True, help="GPUs of each replica.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads; 0 leaves the choice to torch.")
@click.option("--dtype", default="bfloat16", show_default=True, help="As for `serve`.")
@click.option("--max-batch", type=click.IntRange(min=1), default=8, show_default=True, help="As for `serve`.")
@click.option("--max-queue", type=click.IntRange(min=0), default=64, show_default=True, help="As for `serve`.")
@click.option("--drain-seconds", type=click.FloatRange(min=0), default=30.0, show_default=True, help="As for `serve`.")
@click.option("--api-key", envvar="PENSTOCK_ENGINE_API_KEY", default=None, help="Key clients must send.")
def main(
    model: str, served_name: str | None, replicas: int, name: str, address: str | None, host: str, port: int,
    cpus: float, gpus: float, threads: int, dtype: str, max_batch: int, max_queue: int, drain_seconds: float,
    api_key: str | None,
) -> None:  # fmt: skip
    """Run replicas of the engine on a Ray cluster until SIGTERM or Ctrl-C."""
    try:
        engine = EngineConfig(dtype=dtype, max_batch=max_batch, max_queue=max_queue)  # type: ignore[arg-type]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    ray.init(address=address, include_dashboard=False, log_to_driver=False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which has a handler of its own
        signal.signal(number, lambda *_: stop.set())
    try:
        options = Options(model, served_name or model, engine, threads, api_key)
        paths = run_replicas(
            options, name, replicas, port=port, host=host, cpus=cpus, gpus=gpus, drain_seconds=drain_seconds
        )
        for path in paths:
            click.echo(f"serving {options.served_name} at http://{host}:{port}{path}/v1")
        stop.wait()
        for path in paths:
            serve.delete(path.removeprefix("/"))
        serve.shutdown()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(prog_name="python -m deploy.ray_engine")
