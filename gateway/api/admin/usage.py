"""/admin/api/usage and /admin/api/requests: what was used, summed and one by one; a tenant's members see no costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.errors import InvalidValue, NotFound
from gateway.keys.roles import Actor
from gateway.metering.normalise import read_usage
from gateway.reports.requests.queries import RequestFilter, page_of_requests, request_detail
from gateway.reports.usage.report import usage_report

routes = APIRouter()
Page = Annotated[int, Query(ge=1, le=500)]
UsageReader = Annotated[Actor, may("usage.read")]
RequestReader = Annotated[Actor, may("requests.read")]


@routes.get("/usage")
async def usage(
    request: Request,
    actor: UsageReader,
    since: datetime | None = None,
    until: datetime | None = None,
    group_by: str = "tenant,model",
    tenant: TenantName = None,
) -> Any:
    """Tokens by bucket, cost and charge between two moments, grouped by a comma-separated list."""
    groups = tuple(name.strip() for name in group_by.split(",") if name.strip())
    only = tenant_for(actor, tenant)
    try:
        report = await run_in_threadpool(usage_report, services_of(request).database, since, until, groups, only)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="group_by") from None
    return _for(actor, report.as_dict())


@routes.get("/requests")
async def requests(
    request: Request,
    actor: RequestReader,
    limit: Page = 50,
    before: str | None = None,
    tenant: TenantName = None,
    project: str | None = None,
    key: str | None = None,
    user: str | None = None,
    model: str | None = None,
    outcome: str | None = None,
    session: str | None = None,
    tag: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Any:
    """Metered requests, newest first, those that have all that is given; `next` is the `before` of the following page."""
    only = tenant_for(actor, tenant)
    wanted = RequestFilter(only, project, key, user, model, outcome, session, tag, _utc(since), _utc(until))
    try:
        page = await run_in_threadpool(page_of_requests, services_of(request).database, limit, before, wanted)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
    return _for(actor, page.as_dict())


@routes.get("/requests/{request_id}")
async def one_request(request: Request, actor: RequestReader, request_id: str) -> Any:
    """One request: decision, attempts, token buckets and the cost arithmetic; what contradicts itself in a report, and how."""
    services = services_of(request)
    detail = await run_in_threadpool(request_detail, services.database, request_id, actor.tenant)
    if detail is None:
        raise NotFound(
            f"No metered request has the id {request_id!r}. It may take a second to arrive after its answer."
        )
    conventions = {model.name: model.usage for model in services.catalog.models}
    for attempt in detail["attempts"]:
        # The report is kept as it came, so why its usage is marked can be told at any time.
        raw = attempt["raw_usage"]
        attempt["usage_problems"] = list(read_usage(raw, conventions.get(attempt["model"])).problems) if raw else []
    if actor.tenant is not None:
        mine = f"tenant:{actor.tenant}:"
        detail["ledger"] = [entry for entry in detail["ledger"] if entry["account"].startswith(mine)]
    return _for(actor, detail)


def _for(actor: Actor, document: Any) -> Any:
    """What providers ask is the operator's business: members of one tenant see what the tenant pays."""
    if actor.tenant is None:
        return document
    if isinstance(document, list):
        return [_for(actor, item) for item in document]
    if not isinstance(document, dict):
        return document
    return {name: _for(actor, value) for name, value in document.items() if not _about_costs(name)}


def _about_costs(name: str) -> bool:
    """The source of a charge names the markup, which with the rate gives the cost away."""
    return "cost" in name or name == "charge_source"


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
