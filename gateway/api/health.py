"""Health for load balancers, metrics for Prometheus: open routes that show no tenant's data."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from gateway.errors import Unavailable
from gateway.services import Services

LIVE_PATHS = ("/health/live", "/health/liveliness", "/health/liveness", "/healthz")
READY_PATHS = ("/health/ready", "/health/readiness")
PATHS = frozenset({*LIVE_PATHS, *READY_PATHS})

router = APIRouter(include_in_schema=False)


async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


async def ready(request: Request) -> dict[str, str]:
    """The parts a request needs answer: database and store. 503 names the one that does not."""
    services: Services = request.app.state.services
    try:
        await run_in_threadpool(services.database.ping)
    except Exception as error:
        raise Unavailable("The database does not answer.") from error
    await services.store.read(["health"])
    return {"status": "ready"}


async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    services: Services = request.app.state.services
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4")


for path in LIVE_PATHS:
    router.add_api_route(path, live)
for path in READY_PATHS:
    router.add_api_route(path, ready)
router.add_api_route("/metrics", metrics)
