"""/admin/api/budgets: every money limit with what is used of it; set, removed and raised while the gateway runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.shapes import NewBudget, NewRaise, seconds
from gateway.billing.budget_report.queries import spending
from gateway.callers import Period
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.keys.queries import list_keys
from gateway.keys.roles import Actor
from gateway.keys.rules.change import end_raise, raise_budget, remove_budget, set_budget, usd_given
from gateway.keys.rules.describe import describe_raise, describe_rule, describe_state
from gateway.keys.rules.effective import counted_budgets, effective, raises_in_force
from gateway.keys.scopes import Owner, find_owner
from gateway.services import Services

routes = APIRouter()
Reader = Annotated[Actor, may("budgets.read")]
Changer = Annotated[Actor, may("budgets.change")]


@routes.get("/budgets")
async def budgets(request: Request, actor: Reader, tenant: TenantName = None) -> dict[str, Any]:
    """Every budget of every owner: limit, raises, used and held (summed from SQL), reset."""
    services, only = services_of(request), tenant_for(actor, tenant)
    return await run_in_threadpool(_list, services.catalog, services.database, only, time.time())


@routes.put("/budgets")
async def put_budget(request: Request, actor: Changer, body: NewBudget) -> dict[str, Any]:
    """Give an owner a budget, in place of the one it has for this period, from the configuration too."""
    services, limit = services_of(request), usd_given(body.limit_usd, "limit_usd")

    def change() -> dict[str, Any]:
        owner = owner_of(services, body.scope, actor)
        hard, now = body.hard, time.time()
        rule = set_budget(services.database, owner, limit, body.period, hard=hard, actor=actor.title, now=now)
        return {"scope": owner.title, **describe_rule(rule)}

    return await run_in_threadpool(change)


@routes.delete("/budgets")
async def delete_budget(request: Request, actor: Changer, scope: str, period: Period = "month") -> dict[str, Any]:
    """End a budget that was set at run time; the one of the configuration counts again."""
    services = services_of(request)

    def change() -> dict[str, Any]:
        owner = owner_of(services, scope, actor)
        remove_budget(services.database, owner, period, actor=actor.title, now=time.time())
        return {"removed": {"scope": owner.title, "period": period}}

    return await run_in_threadpool(change)


@routes.post("/budgets/raises", status_code=201)
async def post_raise(request: Request, actor: Changer, body: NewRaise) -> dict[str, Any]:
    """Add money to a budget until a moment, with a reason."""
    services, extra, now = services_of(request), usd_given(body.usd, "usd"), time.time()
    starts_at, ends_at = seconds(body.starts_at), seconds(body.until)

    def change() -> dict[str, Any]:
        owner = owner_of(services, body.scope, actor)
        made = raise_budget(
            services.database,
            services.catalog,
            owner,
            extra,
            body.period,
            starts_at=starts_at if starts_at is not None else now,
            ends_at=ends_at or 0.0,
            reason=body.reason,
            actor=actor.title,
            now=now,
        )
        return describe_raise(made)

    return await run_in_threadpool(change)


@routes.delete("/budgets/raises/{number}")
async def delete_raise(request: Request, actor: Changer, number: int) -> dict[str, Any]:
    """Take a raise back before its end."""
    database = services_of(request).database
    ended = await run_in_threadpool(
        end_raise, database, number, actor=actor.title, now=time.time(), only_tenant=actor.tenant
    )
    return {"ended": describe_raise(ended)}


def owner_of(services: Services, scope: str, actor: Actor) -> Owner:
    """The owner that a scope names, if the actor may know it."""
    keys = list_keys(services.database, actor.tenant) if scope.startswith("key:") else ()
    return find_owner(scope, services.catalog, keys, actor.tenant)


def _list(catalog: Catalog, database: Database, tenant: str | None, now: float) -> dict[str, Any]:
    rungs = effective(catalog, database, now, tenant)
    spent = spending(database, counted_budgets(rungs), now)
    raises = [describe_raise(each) for each in raises_in_force(database, now, tenant)]
    return {"budgets": describe_state(rungs, spent), "raises": raises}
