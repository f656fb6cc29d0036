"""/admin/api/usage and /admin/api/requests: what was used, summed and one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import services_of
from gateway.errors import InvalidValue, NotFound
from gateway.reports.requests.queries import RequestFilter, page_of_requests, request_detail
from gateway.reports.usage.report import usage_report

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
async def requests(
    request: Request,
    limit: Page = 50,
    before: str | None = None,
    tenant: str | None = None,
    project: str | None = None,
    key: str | None = None,
    user: str | None = None,
    model: str | None = None,
    outcome: str | None = None,
    session: str | None = None,
    tag: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """Metered requests, newest first, those that have all that is given; `next` is the `before` of the following page."""
    wanted = RequestFilter(tenant, project, key, user, model, outcome, session, tag, _utc(since), _utc(until))
    try:
        page = await run_in_threadpool(page_of_requests, services_of(request).database, limit, before, wanted)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
    return page.as_dict()


@routes.get("/requests/{request_id}")
async def one_request(request: Request, request_id: str) -> dict[str, Any]:
    """One request: decision, attempts, token buckets and the cost arithmetic."""
    detail = await run_in_threadpool(request_detail, services_of(request).database, request_id)
    if detail is None:
        raise NotFound(
            f"No metered request has the id {request_id!r}. It may take a second to arrive after its answer."
        )
    return detail


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
