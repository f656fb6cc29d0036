"""/admin/api/events and /admin/api/alerts: what is sent out and has not been taken, and which alerts were given."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import services_of
from gateway.errors import InvalidValue
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.outbox.listing import list_events, retry_events

routes = APIRouter()


@routes.get("/events")
async def events(request: Request, state: Literal["dead", "waiting"] | None = None) -> dict[str, Any]:
    """Messages that have not been taken, given up ones first, and how many events wait behind them."""
    dead = None if state is None else state == "dead"
    return await run_in_threadpool(list_events, services_of(request).database, dead=dead)


@routes.post("/events/{message_id}/retry")
async def retry(request: Request, message_id: str) -> dict[str, Any]:
    """Send a message again that was given up."""
    database = services_of(request).database
    return {"retried": await run_in_threadpool(retry_events, database, [message_id], time.time())}


@routes.get("/alerts")
async def alerts(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: str | None = None,
    tenant: str | None = None,
) -> dict[str, Any]:
    """Alerts that were given, newest first; `next` is the `before` of the following page."""
    try:
        return await run_in_threadpool(list_alerts, services_of(request).database, limit, before, tenant)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
