"""/admin/api/keys: the keys of the API, never their secrets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import services_of
from gateway.keys.queries import list_keys

routes = APIRouter()


@routes.get("/keys")
async def keys(request: Request) -> list[dict[str, Any]]:
    """Keys made by the command line; secrets are not kept and cannot be shown."""
    rows = await run_in_threadpool(list_keys, services_of(request).database)
    shown = ("id", "name", "tenant", "created_at", "expires_at", "revoked_at", "last_used_at")
    return [{name: getattr(row, name) for name in shown} for row in rows]
