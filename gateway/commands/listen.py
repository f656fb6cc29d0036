"""The listening socket, bound before anything else starts, so that a port in use is one clear message."""

from __future__ import annotations

import errno
import socket
import time

from gateway.errors import StartupError

BACKLOG = 2048
PATIENCE_SECONDS = 1.0
"""The processes of a gateway that was killed a moment ago hold its port until they are gone too."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (listening everywhere is the operator's choice)


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 lets the system choose. Raises StartupError saying what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"the address {host!r} is not known ({error}). Give another with --host.") from error
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise StartupError(_explain(error, host, port)) from error
        time.sleep(0.1)


def base_url(listener: socket.socket) -> str:
    """Where this machine reaches the socket: `http://127.0.0.1:4000`."""
    host, port = listener.getsockname()[:2]
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port() -> int:
    """A port on the loopback address that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use by another program. "
            "Stop that program, or choose another port with --port or PENSTOCK_PORT."
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has. Choose one above 1023 with --port or PENSTOCK_PORT."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is not an address of this machine. Choose another with --host or PENSTOCK_HOST."
    return f"cannot listen on {host}:{port} ({error.strerror})."
