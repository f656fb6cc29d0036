"""One HTTP exchange over ASGI: headers, body with a limit, and the ways to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from gateway.errors import BodyTooLarge, BodyTooSlow

BODY_SECONDS = 120.0
"""Longest that a request body may take to arrive."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer and nothing to meter."""


class Exchange:
    """One request and its answer. `received_at` is seconds since the epoch, `started` the same moment, monotonic."""

    __slots__ = (
        "_send",
        "error_code",
        "headers",
        "method",
        "path",
        "receive",
        "received_at",
        "request_id",
        "started",
        "status",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, received_at: float, started: float
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.receive = receive
        self.request_id = request_id
        self.received_at = received_at
        self.started = started
        self.status: int | None = None
        self.error_code: str | None = None
        self._send = send

    def header(self, name: bytes) -> str | None:
        """A request header, decoded; `name` in lower case."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    async def start(self, status: int, headers: Mapping[str, str], length: int | None = None) -> None:
        """Send the status line and headers."""
        self.status = status
        lines = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        lines.append((b"x-request-id", self.request_id.encode()))
        if length is not None:
            lines.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def send_part(self, part: bytes) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def send_end(self) -> None:
        """Finish the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_json(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole JSON answer."""
        await self.start(status, {"content-type": "application/json", **headers}, len(body))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


async def read_body(exchange: Exchange, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is known to exceed `limit` bytes, BodyTooSlow, or ClientGone."""
    declared = exchange.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(exchange, limit)
    except TimeoutError:
        raise BodyTooSlow(f"The request body did not arrive within {BODY_SECONDS:.0f} s. Send it again.") from None


async def _read(exchange: Exchange, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The request body is larger than {limit} bytes. Send less, or raise max_body_bytes in penstock.yaml."
    )


class JsonBodies:
    """Reads bodies as the JSON they have to be, whatever the client calls them: `curl -d` calls everything a form."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], under: str) -> None:
        self._app = app
        self._under = under

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on; its headers say JSON when its path begins with `under`."""
        if scope["type"] == "http" and scope["path"].startswith(self._under):
            others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)
