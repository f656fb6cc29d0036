"""`serve` as a process: take the port, load the model, answer until a signal, drain, leave no thread behind.

A taken port, a model that cannot be loaded and a thread of the engine that died end it with one line and exit status 1.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from starlette.applications import Starlette

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.errors import EngineError
from local_engine.loading import load_engine, warm_up
from local_engine.loop import EngineLoop
from local_engine.metrics import EngineMetrics
from local_engine.model_files import Hub, resolve_model, sampling_defaults
from local_engine.progress import bar
from local_engine.server import Service, create_app
from local_engine.stopping import end_at_once, ignore_late, leave, stop_early

log = logging.getLogger("local_engine")
_LAST_WORDS_SECONDS = 5  # for sending the error events of answers that were cut
_PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES)
_SMALL_CONTEXT = 256  # tokens of prompt and answer together; with less hardly a chat fits


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `serve` was asked for. `threads` 0 leaves torch's choice; `drain_seconds` bounds the wait for open answers."""

    model: str
    served_name: str
    weights_dir: Path
    hub: Hub
    host: str
    port: int
    engine: EngineConfig
    api_key: str | None
    max_body_bytes: int
    threads: int
    drain_seconds: int


def run_server(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        advice = "choose another --port" if error.errno in _PORT_ERRORS else "take an address of this machine as --host"
        return _complain(f"cannot listen on {options.host}:{options.port} ({error.strerror}): {advice}")
    stop_early()
    service = Service(options.served_name, options.api_key, options.max_body_bytes)
    loading = _Loading(options, service, listener)
    status = asyncio.run(_serve(options, listener, service, loading))
    if loading.running:
        print("stopped while the model was loading", file=sys.stderr)
        leave(status)
    if service.loop is not None and service.loop.running:
        log.warning("a step is still being computed: it is left behind")
        leave(status)
    return status


async def _serve(options: ServeOptions, listener: socket.socket, service: Service, loading: _Loading) -> int:
    app = create_app(service, loading.lifespan)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=options.drain_seconds + _LAST_WORDS_SECONDS,
    )
    server = _Server(config)
    loading.server = server
    draining = asyncio.create_task(_drain(server, loading, service, options.drain_seconds))
    ignore_late()
    await server.serve(sockets=[listener])
    draining.cancel()
    return _complain(loading.failure) if loading.failure else 0


class _Server(uvicorn.Server):
    """Takes Ctrl-C again for `hurried`: uvicorn would drop everything, the engine's thread in the middle of a step."""

    hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, a second SIGINT ends open answers now, a third the process."""
        if not self.should_exit or sig != signal.SIGINT:
            super().handle_exit(sig, frame)
        elif self.hurried:
            end_at_once()
        else:
            self.hurried = True


async def _drain(server: _Server, loading: _Loading, service: Service, seconds: int) -> None:
    """Once the server is told to end: take nothing new; after `seconds`, or in a hurry, end open answers with an error.

    A server whose engine's thread has died answers nobody any more: it ends, for whoever supervises it to start anew.
    """
    while not server.should_exit:
        await asyncio.sleep(0.05)  # uvicorn has a flag, not an event
        if service.loop is not None and service.loop.failure is not None:
            loading.failure, server.should_exit = service.loop.failure, True
    service.status = "draining"
    end = time.monotonic() + seconds
    while time.monotonic() < end and not server.hurried:  # noqa: ASYNC110 - set by a signal
        await asyncio.sleep(0.05)
    if service.loop is not None:
        await asyncio.to_thread(service.loop.stop)


class _Loading:
    """Loads the model on its own thread, so that /health answers meanwhile and a signal is obeyed at once."""

    def __init__(self, options: ServeOptions, service: Service, listener: socket.socket) -> None:
        self._options = options
        self._service = service
        self._address = listener.getsockname()
        self.server: uvicorn.Server | None = None
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._load, name="load-model", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the model is still being loaded."""
        return self._thread.is_alive()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Load while the server runs; end the loop after the last answer."""
        self._thread.start()
        yield
        if self._service.loop is not None:
            await asyncio.to_thread(self._service.loop.stop)

    def _load(self) -> None:
        begun = time.monotonic()
        try:
            engine = self._build()
        except Exception as error:
            self.failure = error.message if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            if self.server is not None:
                self.server.should_exit = True
            return
        if engine.max_context < min(
            _SMALL_CONTEXT, self._options.engine.max_context, engine.model_config.max_positions
        ):
            log.warning(
                "the cache holds %d tokens, prompt and answer together must fit: raise --cache-tokens or --cache-mib",
                engine.max_context,
            )
        loop = EngineLoop(engine, EngineMetrics(self._options.served_name))
        loop.start()
        self._service.loop = loop
        if self._service.status == "loading":
            self._service.status = "ready"
        host, port = self._address[:2]
        print(
            f"serving {self._options.served_name} at http://{host}:{port}/v1 ({self._options.engine.dtype}, "
            f"{engine.runner.device}, {torch.get_num_threads()} threads, context {engine.max_context}, "
            f"cache {engine.blocks.blocks * engine.blocks.block_size} tokens, "
            f"loaded in {time.monotonic() - begun:.1f} s)",
            file=sys.stderr,
            flush=True,
        )

    def _build(self) -> Engine:
        options = self._options
        if options.threads:
            torch.set_num_threads(options.threads)
        files = resolve_model(options.model, options.weights_dir, options.hub)
        with bar(f"loading {options.served_name}") as progress:
            engine = load_engine(files.path, options.engine, progress)
        self._service.sampling = sampling_defaults(files.path)
        warm_up(engine)
        return engine


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


def _complain(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr, flush=True)
    return 1
