"""/admin/api/events and /admin/api/alerts: what is sent out and has not been taken, and which alerts were given."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.errors import InvalidValue
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.outbox.listing import list_events, retry_events
from gateway.keys.roles import Actor

routes = APIRouter()


@routes.get("/events")
async def events(
    request: Request, actor: Annotated[Actor, may("events.read")], state: Literal["dead", "waiting"] | None = None
) -> dict[str, Any]:
    """Messages that have not been taken, given up ones first, and how many events wait behind them."""
    dead = None if state is None else state == "dead"
    return await run_in_threadpool(list_events, services_of(request).database, dead=dead)


@routes.post("/events/{message_id}/retry")
async def retry(request: Request, message_id: str, actor: Annotated[Actor, may("events.retry")]) -> dict[str, Any]:
    """Send a message again that was given up."""
    database = services_of(request).database
    return {"retried": await run_in_threadpool(retry_events, database, [message_id], actor.title, time.time())}


@routes.get("/alerts")
async def alerts(
    request: Request,
    actor: Annotated[Actor, may("alerts.read")],
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: str | None = None,
    tenant: TenantName = None,
) -> dict[str, Any]:
    """Alerts that were given, newest first; `next` is the `before` of the following page."""
    only = tenant_for(actor, tenant)
    try:
        return await run_in_threadpool(list_alerts, services_of(request).database, limit, before, only)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
