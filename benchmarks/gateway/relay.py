"""The floor of a Python gateway: read JSON, ask the upstream, read its JSON, pass it on. Checks nothing, counts nothing.

Run by one uvicorn worker; BENCH_UPSTREAM is the upstream's base URL.
"""

import os
from typing import Any

import aiohttp
import orjson


class Relay:
    """An ASGI application with one client session for its life."""

    def __init__(self, upstream: str) -> None:
        self.url = f"{upstream}/chat/completions"
        self.session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, or the start and the end of the application."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self.session is not None
        body = orjson.loads(await _body(receive))
        async with self.session.post(self.url, data=orjson.dumps(body), headers=_JSON) as upstream:
            reply, status = await upstream.read(), upstream.status
        orjson.loads(reply)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self.session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


_JSON = {"content-type": "application/json"}
app = Relay(os.environ["BENCH_UPSTREAM"])
