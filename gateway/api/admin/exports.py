"""/admin/api/exports: scheduled exports, how they went, and one of them on demand."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.api.admin.shapes import NewExportRun
from gateway.billing.exports.scheduled.run import ask, list_runs
from gateway.errors import InvalidValue
from gateway.jobs.exports import office_of
from gateway.keys.roles import Actor
from gateway.services import Services

routes = APIRouter()
Page = Annotated[int, Query(ge=1, le=500)]
Reader = Annotated[Actor, may("exports.read")]
Changer = Annotated[Actor, may("exports.run")]
HIDDEN = {"s3": {"access_key_id", "secret_access_key"}}


@routes.get("/exports")
async def exports(
    request: Request, actor: Reader, name: str | None = None, limit: Page = 50, before: int | None = None
) -> dict[str, Any]:
    """The scheduled exports of the configuration, and a page of runs, newest first."""
    services = services_of(request)
    page = await run_in_threadpool(list_runs, services.database, name, limit, before)
    return {"exports": [entry.model_dump(mode="json", exclude=HIDDEN) for entry in services.catalog.exports], **page}


@routes.post("/exports/{name}/runs", status_code=202)
async def run_export(
    request: Request, actor: Changer, name: str, period: str | None = None, body: NewExportRun | None = None
) -> dict[str, Any]:
    """Queue a run of a scheduled export, of its last due period when none is given; the job does it within a minute."""
    asked = body.period if body is not None else None
    if None not in (period, asked) and period != asked:
        raise InvalidValue(
            f"The address asks for {period!r} and the body for {asked!r}; give one of them.", param="period"
        )
    try:
        return await run_in_threadpool(_ask, services_of(request), name, asked if asked is not None else period)
    except ValueError as error:
        raise InvalidValue(f"{error}", param="period") from None


def _ask(services: Services, name: str, period: str | None) -> dict[str, Any]:
    return ask(office_of(services.settings, services.catalog, services.database, time.time), name, period, "api")
