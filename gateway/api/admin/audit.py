"""/admin/api/audit: who changed what, newest first, in pages whose cost does not grow with depth."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.db.audit import audit_page
from gateway.keys.roles import Actor

routes = APIRouter()


@routes.get("/audit")
async def audit(
    request: Request,
    actor: Annotated[Actor, may("audit.read")],
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[int | None, Query(ge=1, lt=2**62)] = None,
    tenant: TenantName = None,
) -> dict[str, Any]:
    """Changes; `next` is the `before` of the following page."""
    page = await run_in_threadpool(audit_page, services_of(request).database, limit, before, tenant_for(actor, tenant))
    return {"entries": page.entries, "next": page.next}
