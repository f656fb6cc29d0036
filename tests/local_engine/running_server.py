"""Run the engine's real server on a free port of the loopback, on a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from local_engine.engine import Engine
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.server import Service, create_app

PATIENCE = 30.0  # seconds until a wait counts as failed


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, and what it runs."""

    url: str
    model: str
    loop: EngineLoop
    service: Service

    def wait_until_idle(self) -> None:
        """Return when no request is open any more."""
        wait_for(lambda: self.loop.open_requests == 0 and not self.loop.engine.busy)


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until `condition()` is true; fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextmanager
def serve_in_thread(engine: Engine, name: str, **options: object) -> Iterator[RunningServer]:
    """Serve `engine` while the block runs; `options` go to Service."""
    loop = EngineLoop(engine, EngineMetrics(name))
    loop.start()
    service = Service(name, status="ready", loop=loop, **options)  # type: ignore[arg-type]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning", access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", name, loop, service)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        loop.stop()
