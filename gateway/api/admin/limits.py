"""/admin/api/limits: requests, tokens and parallel calls that every owner may take; set and removed while the gateway runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.budgets import owner_of
from gateway.api.admin.shapes import NewLimit
from gateway.keys.roles import Actor
from gateway.keys.rules.change import remove_limit, set_limit
from gateway.keys.rules.describe import limit_name
from gateway.keys.rules.effective import effective

routes = APIRouter()
Reader = Annotated[Actor, may("budgets.read")]
Changer = Annotated[Actor, may("budgets.change")]


@routes.get("/limits")
async def limits(request: Request, actor: Reader, tenant: TenantName = None) -> dict[str, Any]:
    """Every rate limit of every owner, from the configuration or set at run time."""
    services, only = services_of(request), tenant_for(actor, tenant)
    rungs = await run_in_threadpool(effective, services.catalog, services.database, time.time(), only)
    return {
        "limits": [
            {
                "scope": rung.owner.title,
                "tenant": rung.owner.tenant,
                "limit": limit_name(limit.kind, limit.per),
                "value": limit.limit,
            }
            for rung in rungs
            for limit in rung.allowance.limits
        ]
    }


@routes.put("/limits")
async def put_limit(request: Request, actor: Changer, body: NewLimit) -> dict[str, Any]:
    """Give an owner a rate limit, in place of the same one it has."""
    services = services_of(request)

    def change() -> dict[str, Any]:
        owner = owner_of(services, body.scope, actor)
        set_limit(services.database, owner, body.limit, body.value, actor=actor.title, now=time.time())
        return {"scope": owner.title, "limit": body.limit, "value": body.value}

    return await run_in_threadpool(change)


@routes.delete("/limits")
async def delete_limit(request: Request, actor: Changer, scope: str, limit: str) -> dict[str, Any]:
    """End a rate limit that was set at run time; the one of the configuration counts again."""
    services = services_of(request)

    def change() -> dict[str, Any]:
        owner = owner_of(services, scope, actor)
        remove_limit(services.database, owner, limit, actor=actor.title, now=time.time())
        return {"removed": {"scope": owner.title, "limit": limit}}

    return await run_in_threadpool(change)
