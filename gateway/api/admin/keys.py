"""/admin/api/keys: list, make, rotate and revoke keys; a secret is only in the reply to what made it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.shapes import NewKeyBody, Rotation, seconds
from gateway.callers import Allowance
from gateway.catalog import Catalog, DeclaredKey
from gateway.catalog_owners import LIMITS
from gateway.db.connect import Database
from gateway.errors import InvalidValue
from gateway.keys.change import KeyOrder, NewKey, check_order, create_key, revoke_key, rotate_key
from gateway.keys.queries import KeyRow, list_keys
from gateway.keys.roles import Actor, check_tenant
from gateway.keys.rules.change import usd_given
from gateway.keys.rules.describe import describe_allowance, describe_terms, moment_text
from gateway.keys.rules.effective import effective

routes = APIRouter()
Reader = Annotated[Actor, may("keys.read")]
Changer = Annotated[Actor, may("keys.change")]


@routes.get("/keys")
async def keys(request: Request, actor: Reader, tenant: TenantName = None) -> list[dict[str, Any]]:
    """Keys with budgets and limits, those of the configuration first; secrets are not kept and cannot be shown."""
    services, only = services_of(request), tenant_for(actor, tenant)
    return await run_in_threadpool(_list, services.catalog, services.database, only, time.time())


@routes.post("/keys", status_code=201)
async def make_key(request: Request, actor: Changer, body: NewKeyBody) -> dict[str, Any]:
    """Make a key. Its secret (`key`) is in this reply and nowhere else."""
    services, order = services_of(request), _order(body)
    check_tenant(actor, order.tenant)
    check_order(order, services.catalog)
    return _made(await run_in_threadpool(create_key, services.database, order, actor.title))


@routes.post("/keys/{key_id}/rotate")
async def rotate(request: Request, actor: Changer, key_id: str, body: Rotation | None = None) -> dict[str, Any]:
    """Give a key a new secret, which is in this reply and nowhere else."""
    overlap, now = body.overlap_seconds if body is not None else 0.0, time.time()
    services = services_of(request)
    how: dict[str, Any] = {"tenant": actor.tenant, "now": now, "declared": services.catalog.keys}
    made = await run_in_threadpool(rotate_key, services.database, key_id, overlap, actor.title, **how)
    return {**_made(made), "old_secret_ends_at": moment_text(now + overlap)}


@routes.post("/keys/{key_id}/revoke")
async def revoke(request: Request, actor: Changer, key_id: str) -> dict[str, Any]:
    """End a key and all of its secrets."""
    services = services_of(request)
    how: dict[str, Any] = {"tenant": actor.tenant, "declared": services.catalog.keys}
    ended = await run_in_threadpool(revoke_key, services.database, key_id, actor.title, **how)
    return {"revoked": ended.id}


def _order(body: NewKeyBody) -> KeyOrder:
    budgets = {budget.period: usd_given(budget.limit_usd, "limit_usd") for budget in body.budgets}
    if len(budgets) != len(body.budgets):
        raise InvalidValue("budgets: there can be one budget for each period.", param="budgets")
    for name in body.limits:
        if name not in LIMITS:
            raise InvalidValue(f"limits: {name!r} is not a limit. Known: {', '.join(LIMITS)}.", param="limits")
    return KeyOrder(
        name=body.name,
        tenant=body.tenant,
        project=body.project,
        models=frozenset(body.models) if body.models is not None else None,
        tiers=frozenset(body.tiers) if body.tiers is not None else None,
        budgets=budgets,
        limits=body.limits,
        expires_at=seconds(body.expires_at),
        routing=body.routing,
    )


def _made(made: NewKey) -> dict[str, Any]:
    return {"id": made.id, "name": made.name, "tenant": made.tenant, "key": made.secret}


def _list(catalog: Catalog, database: Database, tenant: str | None, now: float) -> list[dict[str, Any]]:
    rungs = effective(catalog, database, now, tenant)
    allowances = {rung.owner.name: rung.allowance for rung in rungs if rung.owner.kind == "key"}
    known: list[DeclaredKey | KeyRow] = [key for key in catalog.keys if tenant in (None, key.tenant)]
    known += list_keys(database, tenant)
    return [_describe(key, allowances.get(key.id), now) for key in known]


def _describe(key: DeclaredKey | KeyRow, allowance: Allowance | None, now: float) -> dict[str, Any]:
    stored = key if isinstance(key, KeyRow) else None
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "project": key.project,
        "declared": stored is None,
        "state": stored.state(now) if stored is not None else "valid",
        "models": sorted(key.models) if key.models is not None else None,
        "tiers": sorted(key.tiers) if key.tiers is not None else None,
        "routing": describe_terms(key.terms),
        **describe_allowance(allowance or Allowance()),
        "created_at": moment_text(stored.created_at) if stored else None,
        "expires_at": moment_text(stored.expires_at) if stored else None,
        "revoked_at": moment_text(stored.revoked_at) if stored else None,
        "last_used_at": moment_text(stored.last_used_at) if stored else None,
    }
