"""/admin/api/ledger: whether the books agree."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.billing.ledger.verify import verify
from gateway.keys.roles import Actor

routes = APIRouter()


@routes.get("/ledger/verify")
async def ledger_verify(request: Request, actor: Annotated[Actor, may("ledger.verify")]) -> dict[str, Any]:
    """Whether usage, rated lines, holds and ledger agree."""
    services = services_of(request)
    verification = await run_in_threadpool(verify, services.database, services.settings.spool)
    return verification.as_dict()
