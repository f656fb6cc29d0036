"""/admin/api/usage and /admin/api/requests: what was used, summed and one by one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import services_of
from gateway.billing.queries import page_of_requests, request_detail, usage_report
from gateway.errors import InvalidValue, NotFound
from gateway.metering.normalise import read_usage

routes = APIRouter()
Page = Annotated[int, Query(ge=1, le=500)]


@routes.get("/usage")
async def usage(
    request: Request, since: datetime | None = None, until: datetime | None = None, group_by: str = "tenant,model"
) -> dict[str, Any]:
    """Tokens by bucket, cost and charge between two moments, grouped by a comma-separated list."""
    groups = tuple(name.strip() for name in group_by.split(",") if name.strip())
    try:
        report = await run_in_threadpool(usage_report, services_of(request).database, since, until, groups)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="group_by") from None
    return report.as_dict()


@routes.get("/requests")
async def requests(request: Request, limit: Page = 50, before: str | None = None) -> dict[str, Any]:
    """Metered requests, newest first; `next` is the `before` of the following page."""
    try:
        page = await run_in_threadpool(page_of_requests, services_of(request).database, limit, before)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
    return page.as_dict()


@routes.get("/requests/{request_id}")
async def one_request(request: Request, request_id: str) -> dict[str, Any]:
    """One request: decision, attempts, token buckets and the cost arithmetic; what contradicts itself in a report, and how."""
    services = services_of(request)
    detail = await run_in_threadpool(request_detail, services.database, request_id)
    if detail is None:
        raise NotFound(
            f"No metered request has the id {request_id!r}. It may take a second to arrive after its answer."
        )
    conventions = {model.name: model.usage for model in services.catalog.models}
    for attempt in detail["attempts"]:
        # The report is kept as it came, so why its usage is marked can be told at any time.
        raw = attempt["raw_usage"]
        attempt["usage_problems"] = list(read_usage(raw, conventions.get(attempt["model"])).problems) if raw else []
    return detail
