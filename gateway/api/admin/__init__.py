"""The admin page and the admin API: one file per noun, all behind the admin key or the token of a member."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from gateway.api.admin import (
    artifacts,
    audit,
    budgets,
    events,
    exports,
    invoices,
    jobs,
    keys,
    labels,
    ledger,
    limits,
    members,
    models,
    policies,
    reconciliation,
    routing,
    shadow,
    tenants,
    usage,
)
from gateway.api.admin.access import require_member

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Penstock</title>
<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:42rem} code{background:#eee}</style>
<h1>Penstock</h1>
<p>The gateway is running. This version has no admin interface for the browser; the admin API is:</p>
<pre>curl -H "Authorization: Bearer $PENSTOCK_ADMIN_KEY" $BASE/admin/api/requests</pre>
<p>Routes: <a href="/admin/api/openapi.json">OpenAPI</a>. Metrics: <a href="/metrics">/metrics</a>.</p>
"""

router = APIRouter()
api = APIRouter(prefix="/admin/api", dependencies=[Depends(require_member)], tags=["admin"])


@router.get("/admin", include_in_schema=False, response_class=HTMLResponse)
async def admin_page() -> HTMLResponse:
    """A page that says where the admin API is."""
    return HTMLResponse(PAGE)


NOUNS = (
    tenants, keys, budgets, limits, members, models, policies, routing, usage, ledger, invoices, exports, reconciliation,
    labels, shadow, jobs, events, audit, artifacts,
)  # fmt: skip
for noun in NOUNS:
    api.include_router(noun.routes)
router.include_router(api)
