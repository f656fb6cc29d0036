"""/admin/api/jobs: how the jobs are doing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import may, services_of
from gateway.jobs.listing import list_jobs
from gateway.jobs.table import JOBS
from gateway.keys.roles import Actor

routes = APIRouter()


@routes.get("/jobs")
async def jobs(request: Request, actor: Annotated[Actor, may("jobs.read")]) -> dict[str, Any]:
    """Which process runs the jobs, and every job's interval and last run."""
    return await run_in_threadpool(list_jobs, services_of(request).database, JOBS)
