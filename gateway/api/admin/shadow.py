"""/admin/api/shadow: answers of another tier to sampled requests, and verdicts on pairs that wait for a person."""

from __future__ import annotations

import time
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.shapes import NewVerdict
from gateway.errors import InvalidValue, NotFound
from gateway.keys.roles import Actor
from gateway.labels.shadows.desk import judge, list_pairs
from gateway.verdicts import ShadowStatus

routes = APIRouter()


@routes.get("/shadow")
async def pairs(
    request: Request,
    actor: Annotated[Actor, may("labels.read")],
    status: str = "waiting",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: str | None = None,
    tenant: TenantName = None,
) -> dict[str, Any]:
    """Pairs of a status (`all` for every one), oldest first. Those that wait have their texts and hide who wrote which."""
    if status not in (*get_args(ShadowStatus), "all"):
        raise InvalidValue(f"status {status!r}: give {', '.join(get_args(ShadowStatus))} or all.", param="status")
    only, wanted = tenant_for(actor, tenant), None if status == "all" else status
    try:
        page = await run_in_threadpool(list_pairs, services_of(request).database, wanted, limit, after, only)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="after") from None
    if only is not None and not page["pairs"] and only not in services_of(request).catalog.tenants:
        raise NotFound(f"There is no tenant {only!r}: it is not configured and has no shadow answers.")
    if actor.tenant is not None:  # what providers ask is the operator's business
        page["pairs"] = [{name: value for name, value in pair.items() if name != "cost_pico"} for pair in page["pairs"]]
    return page


@routes.post("/shadow/{request_id}")
async def verdict(
    request: Request, actor: Annotated[Actor, may("shadow.judge")], request_id: str, body: NewVerdict
) -> dict[str, Any]:
    """Say which answer of a pair is better; the reply says who wrote them."""
    services = services_of(request)
    how = (request_id, body.verdict, actor.title, time.time(), actor.tenant)
    judged = await run_in_threadpool(judge, services.database, *how)
    for name in ("answered_model", "model"):
        services.metrics.add("penstock_labels_total", ("human", judged[name]))
    return judged
