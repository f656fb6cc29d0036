"""The front of the gateway: gives every request an id, serves hot routes itself, and renders every error in one place."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import orjson

from gateway.api.asgi import ClientGone, Exchange, Message, Receive, Scope, Send
from gateway.errors import MethodNotAllowed, PenstockError
from gateway.request_ids import new_request_id
from gateway.services import Services

logger = logging.getLogger("penstock.access")

HotRoute = Callable[[Exchange, Services], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Front:
    """ASGI application. Hot routes see an Exchange and no framework; everything else goes to `rest` (FastAPI)."""

    def __init__(self, hot: Mapping[str, HotRoute], rest: ASGIApp) -> None:
        self._hot = hot
        self._rest = rest
        self.services: Services | None = None
        self.failure: Exception | None = None
        """Why the parts could not be opened; said in its own words instead of a traceback."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        route = self._hot.get(scope["path"]) if scope["type"] == "http" else None
        services = self.services
        if scope["type"] == "lifespan":
            await self._rest(scope, receive, self._plainly(send))
            return
        if route is None or services is None:
            await self._rest(scope, receive, send)
            return
        received_at = time.time()
        exchange = Exchange(scope, receive, send, new_request_id(received_at), received_at, time.perf_counter())
        services.metrics.add("penstock_requests_in_flight")
        try:
            if exchange.method != "POST":
                raise MethodNotAllowed(f"{exchange.path} takes POST, not {exchange.method}.", headers={"allow": "POST"})
            await route(exchange, services)
        except PenstockError as error:
            await refuse(exchange, error, services)
        except ClientGone:
            logger.debug("client left before its request was complete", extra={"request_id": exchange.request_id})
        except Exception:
            logger.exception("a request failed", extra={"request_id": exchange.request_id})
            await refuse(
                exchange, PenstockError("Penstock failed to answer; the request id helps to find out why."), services
            )
        finally:
            services.metrics.add("penstock_requests_in_flight", (), -1)
            self._log(exchange)

    def _plainly(self, send: Send) -> Send:
        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self.failure is not None:
                message = {**message, "message": str(self.failure)}
            await send(message)

        return send_plainly

    def _log(self, exchange: Exchange) -> None:
        """One line per request that was refused; the others are in the request log of the database."""
        refused = exchange.status is None or exchange.status >= 400
        level = logging.INFO if refused else logging.DEBUG
        if logger.isEnabledFor(level):
            milliseconds = round((time.perf_counter() - exchange.started) * 1000, 3)
            fields = {"request_id": exchange.request_id, "status": exchange.status, "ms": milliseconds}
            if exchange.error_code is not None:
                fields["code"] = exchange.error_code
            logger.log(level, "%s %s", exchange.method, exchange.path, extra=fields)


async def refuse(exchange: Exchange, error: PenstockError, services: Services) -> None:
    """Answer with an error, unless an answer has already begun."""
    services.metrics.add("penstock_refused_total", (error.code,))
    if exchange.status is not None:
        return
    exchange.error_code = error.code
    headers = {"x-penstock-request-id": exchange.request_id, **error.headers}
    await exchange.send_json(error.http_status, orjson.dumps(error.body()), headers)
