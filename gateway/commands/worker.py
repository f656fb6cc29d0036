"""`penstock worker`: one gateway process on a socket that `up` or `serve` has opened; not for people."""

from __future__ import annotations

import logging
import signal
import socket
import sys

import click

from gateway.commands.options import settings_with

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that they, not we, close them."""
GRACEFUL_SECONDS = 30


@click.command(hidden=True)
@click.option("--fd", type=int, required=True, help="Descriptor of the listening socket.")
@click.option("--engine-url", help="Where the bundled engine is.")
def worker(fd: int, engine_url: str | None) -> None:
    """Serve the gateway from an inherited socket."""
    import uvicorn

    from gateway.app import create_app
    from gateway.commands.configuration import load_catalog
    from gateway.telemetry.logs import configure_logging

    # uvicorn raises the signal again after its clean stop; that must then be a clean exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    settings = settings_with()
    configure_logging(settings.log_level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the supervisor says when it has started and stopped
    config = uvicorn.Config(
        create_app(settings, load_catalog(settings), engine_url),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=fd)])
    if not server.started:
        sys.exit(1)
