"""/admin/api/tenants: who is billed, with projects and everything that each of its owners may take."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.callers import SessionLimits
from gateway.catalog import Tenant
from gateway.keys.roles import Actor
from gateway.keys.rules.describe import describe_allowance
from gateway.keys.rules.effective import Rung, effective
from gateway.money import format_usd

routes = APIRouter()


@routes.get("/tenants")
async def tenants(request: Request, actor: Annotated[Actor, may("tenants.read")]) -> list[dict[str, Any]]:
    """Tenants with the ladder of budgets and limits in force: the configuration, changes at run time and raises together."""
    services = services_of(request)
    rungs = await run_in_threadpool(effective, services.catalog, services.database, time.time(), actor.tenant)
    declared = [tenant for name, tenant in services.catalog.tenants.items() if actor.tenant in (None, name)]
    return [_describe(tenant, [rung for rung in rungs if rung.owner.tenant == tenant.name]) for tenant in declared]


def _describe(tenant: Tenant, rungs: list[Rung]) -> dict[str, Any]:
    def of(kind: str) -> list[dict[str, Any]]:
        mine = (rung for rung in rungs if rung.owner.kind == kind and rung.owner.counted)
        return [
            {
                "name": rung.owner.shown or rung.owner.name,
                "scope": rung.owner.title,
                **describe_allowance(rung.allowance),
            }
            for rung in mine
        ]

    whole = next(rung for rung in rungs if rung.owner.kind == "tenant")
    each = next(rung for rung in rungs if rung.owner.kind == "user" and not rung.owner.counted)
    return {
        "name": tenant.name,
        "policy": tenant.policy,
        **describe_allowance(whole.allowance),
        "projects": of("project"),
        "keys": of("key"),
        "each_user": describe_allowance(each.allowance),
        "users": of("user"),
        "models": of("model"),
        "tags": of("tag"),
        "sessions": _sessions(tenant.named.sessions),
        "estimate_percentile": tenant.estimating.percentile,
    }


def _sessions(limits: SessionLimits | None) -> dict[str, Any] | None:
    if limits is None:
        return None
    return {
        "limit_usd": format_usd(limits.money) if limits.money is not None else None,
        "tokens": limits.tokens,
        "steps": limits.steps,
        "seconds": limits.seconds,
        "repeats": limits.repeats,
        "idle_seconds": limits.idle_seconds,
    }
