"""/admin/api/policies: how `auto` chooses; changed while the gateways run, which follow within seconds."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.errors import NotFound
from gateway.keys.roles import Actor
from gateway.routing.policies.change import configured_policy, reset_policy, set_policy
from gateway.routing.policies.describe import policies_now

routes = APIRouter()
Reader = Annotated[Actor, may("policies.read")]
Changer = Annotated[Actor, may("policies.change")]
Settings = Annotated[dict[str, Any], Body(description="Keys of the policy, as in penstock.yaml.")]


@routes.get("/policies")
async def policies(request: Request, actor: Reader) -> list[dict[str, Any]]:
    """Every policy as it counts, and which of its keys were set at run time, by whom and when."""
    services = services_of(request)
    return await run_in_threadpool(policies_now, services.catalog, services.database)


@routes.get("/policies/{name}")
async def policy(request: Request, actor: Reader, name: str) -> dict[str, Any]:
    """One policy."""
    services = services_of(request)
    configured_policy(services.catalog, name)
    found = await run_in_threadpool(policies_now, services.catalog, services.database)
    for each in found:
        if each["name"] == name:
            return each
    raise NotFound(f"There is no policy {name!r}.")


@routes.put("/policies/{name}")
async def put_policy(request: Request, actor: Changer, name: str, settings: Settings) -> dict[str, Any]:
    """Put these keys in the place of the configured ones; null resets a key, and those that are not named stay as they are."""
    services = services_of(request)

    def change() -> dict[str, Any]:
        made = set_policy(services.database, services.catalog, name, settings, actor=actor.title, now=time.time())
        return {"name": name, "policy": made.model_dump(mode="json")}

    return await run_in_threadpool(change)


@routes.delete("/policies/{name}")
async def delete_policy(request: Request, actor: Changer, name: str) -> dict[str, Any]:
    """Let the policy be as it is configured."""
    services = services_of(request)

    def change() -> dict[str, Any]:
        left = reset_policy(services.database, services.catalog, name, actor=actor.title, now=time.time())
        return {"name": name, "policy": left.model_dump(mode="json")}

    return await run_in_threadpool(change)
