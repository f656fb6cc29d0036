"""The admin API: what was asked, why it went where it went, what it cost. Every route needs the admin key."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from gateway.billing.ledger import verify
from gateway.billing.queries import page_of_requests, request_detail, usage_report
from gateway.errors import InvalidKey, InvalidValue, MissingKey, NotFound
from gateway.keys.queries import list_keys
from gateway.money import PICO_PER_USD
from gateway.services import Services

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Penstock</title>
<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:42rem} code{background:#eee}</style>
<h1>Penstock</h1>
<p>The gateway is running. This version has no admin interface for the browser; the admin API is:</p>
<pre>curl -H "Authorization: Bearer $PENSTOCK_ADMIN_KEY" $BASE/admin/api/requests</pre>
<p>Routes: <a href="/admin/api/openapi.json">OpenAPI</a>. Metrics: <a href="/metrics">/metrics</a>.</p>
"""


def services_of(request: Request) -> Services:
    """The process's services."""
    services: Services = request.app.state.services
    return services


def require_admin(request: Request) -> None:
    """Let only the admin key pass. Raises MissingKey or InvalidKey."""
    expected = services_of(request).settings.admin_key
    if expected is None:
        raise InvalidKey("The admin API is off: set PENSTOCK_ADMIN_KEY and restart.")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise MissingKey("The admin API needs 'Authorization: Bearer $PENSTOCK_ADMIN_KEY'.")
    if not secrets.compare_digest(given.strip().encode(), expected.encode()):
        raise InvalidKey("This is not the admin key.")


router = APIRouter()
api = APIRouter(prefix="/admin/api", dependencies=[Depends(require_admin)], tags=["admin"])
Page = Annotated[int, Query(ge=1, le=500)]


@router.get("/admin", include_in_schema=False, response_class=HTMLResponse)
async def admin_page() -> HTMLResponse:
    """A page that says where the admin API is."""
    return HTMLResponse(PAGE)


@api.get("/models")
async def models(request: Request) -> list[dict[str, Any]]:
    """Every deployment with its tier, place and provider price of now in USD per million units."""
    services = services_of(request)
    costs = services.prices.current().costs
    return [
        {
            "name": model.name,
            "tier": model.tier,
            "provider": model.provider,
            "upstream_model": model.upstream_model,
            "context": model.context,
            "price": {meter: rate / PICO_PER_USD for meter, rate in cost.plain.rates.items()} if cost else None,
            "price_source": cost.plain.source if cost else None,
        }
        for model, cost in zip(services.catalog.models, costs, strict=True)
    ]


@api.get("/keys")
async def keys(request: Request) -> list[dict[str, Any]]:
    """Keys made by the command line; secrets are not kept and cannot be shown."""
    rows = await run_in_threadpool(list_keys, services_of(request).database)
    shown = ("id", "name", "tenant", "created_at", "expires_at", "revoked_at", "last_used_at")
    return [{name: getattr(row, name) for name in shown} for row in rows]


@api.get("/usage")
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


@api.get("/requests")
async def requests(request: Request, limit: Page = 50, before: str | None = None) -> dict[str, Any]:
    """Metered requests, newest first; `next` is the `before` of the following page."""
    try:
        page = await run_in_threadpool(page_of_requests, services_of(request).database, limit, before)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="before") from None
    return page.as_dict()


@api.get("/requests/{request_id}")
async def one_request(request: Request, request_id: str) -> dict[str, Any]:
    """One request: decision, attempts, token buckets and the cost arithmetic."""
    detail = await run_in_threadpool(request_detail, services_of(request).database, request_id)
    if detail is None:
        raise NotFound(
            f"No metered request has the id {request_id!r}. It may take a second to arrive after its answer."
        )
    return detail


@api.get("/ledger/verify")
async def ledger_verify(request: Request) -> dict[str, Any]:
    """Whether usage, rated lines, holds and ledger agree."""
    services = services_of(request)
    verification = await run_in_threadpool(verify, services.database, services.settings.spool)
    return verification.as_dict()


router.include_router(api)
