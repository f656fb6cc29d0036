"""/admin/api/requests/{request_id}/labels: what is said about the answers to one request."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.errors import NotFound
from gateway.keys.roles import Actor
from gateway.labels.queries import find_owner, labels_of
from gateway.request_ids import received_at_of

routes = APIRouter()
YOUNG = 60.0


@routes.get("/requests/{request_id}/labels")
async def labels(
    request: Request, actor: Annotated[Actor, may("labels.read")], request_id: str
) -> list[dict[str, Any]]:
    """Every label of a request, oldest first; empty when nobody has said anything. NotFound for a request that is not known."""
    return await run_in_threadpool(_labels, services_of(request).database, request_id, actor.tenant)


def _labels(database: Database, request_id: str, tenant: str | None) -> list[dict[str, Any]]:
    with snapshot(database) as connection:
        found = labels_of(connection, request_id, tenant)
        owner = None if found else find_owner(connection, request_id)
    if not found and (owner is None or tenant not in (None, owner.tenant)) and not _on_its_way(request_id):
        raise NotFound(f"There is no request {request_id!r}.")
    return found


def _on_its_way(request_id: str) -> bool:
    """Whether this may be a request that has just been made and is not metered yet."""
    received_at = received_at_of(request_id)
    return received_at is not None and time.time() - received_at < YOUNG
