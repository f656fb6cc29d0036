"""/admin/api/reconciliation: runs with their findings, decisions about them, and signatures with what changed since."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.admin.access import may, services_of
from gateway.api.admin.values import month_of
from gateway.billing.reconcile.accept import Decision, decide
from gateway.billing.reconcile.desk import Kind
from gateway.billing.reconcile.drill_down import behind
from gateway.billing.reconcile.show import list_runs, read_run
from gateway.billing.reconcile.sign_off import Owner, list_sign_offs, sign_off
from gateway.errors import InvalidValue
from gateway.keys.roles import ADMIN_KEY, Actor

routes = APIRouter()
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Reader = Annotated[Actor, may("reconciliation.read")]
Changer = Annotated[Actor, may("reconciliation.change")]


class Decided(BaseModel):
    """Findings by number, or every open one of a class, and what is decided about them."""

    model_config = ConfigDict(extra="forbid")
    decision: Decision = "accepted"
    findings: tuple[Annotated[int, Field(ge=1)], ...] = ()
    kind: Annotated[Kind | None, Field(alias="class")] = None
    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    by: Name | None = None


class Signature(BaseModel):
    """Whose month is signed off, by whom, and why although it is not ready."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["provider", "tenant"]
    owner: Name
    period: str
    by: Name | None = None
    note: Annotated[str, Field(max_length=2000)] = ""
    force: Annotated[str | None, Field(min_length=1, max_length=2000)] = None


@routes.get("/reconciliation/runs")
async def runs(
    request: Request, actor: Reader, provider: str | None = None, period: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Comparisons of provider bills with our book; the newest month and in it the newest run first."""
    month = month_of(period) if period is not None else None
    found = await run_in_threadpool(list_runs, services_of(request).database, provider, month, limit)
    return {"runs": [each.summary() for each in found]}


@routes.get("/reconciliation/runs/{run_id}")
async def one_run(
    request: Request, actor: Reader, run_id: str, kind: Annotated[Kind | None, Query(alias="class")] = None
) -> dict[str, Any]:
    """One run with its findings; agreed ones are listed when their class is asked for."""
    return (await run_in_threadpool(read_run, services_of(request).database, run_id)).as_dict(kind)


@routes.get("/reconciliation/runs/{run_id}/findings/{number}")
async def one_finding(request: Request, actor: Reader, run_id: str, number: int, limit: Limit = 100) -> dict[str, Any]:
    """Bill lines and requests behind a finding; the request nearest to the variance first."""
    return (await run_in_threadpool(behind, services_of(request).database, run_id, number, limit)).as_dict()


@routes.post("/reconciliation/runs/{run_id}/decisions")
async def decisions(request: Request, actor: Changer, run_id: str, body: Decided) -> dict[str, Any]:
    """Accept findings, which corrects the provider's cost in the ledger, or dispute them, which posts nothing."""
    if bool(body.findings) == (body.kind is not None):
        raise InvalidValue("findings: name findings by number or one class, not both or neither.", param="findings")
    decided = partial(
        decide, services_of(request).database, run_id, body.findings, body.decision, body.reason, _by(actor, body.by),
        datetime.now(UTC), kind=body.kind, actor=actor.title,
    )  # fmt: skip
    try:
        return (await run_in_threadpool(decided)).as_dict()
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="findings") from None


@routes.get("/reconciliation/sign-offs")
async def sign_offs(
    request: Request, actor: Reader, kind: Owner | None = None, owner: str | None = None, period: str | None = None
) -> dict[str, Any]:
    """Signatures with what has changed since."""
    wanted = str(month_of(period)) if period is not None else None
    found = await run_in_threadpool(list_sign_offs, services_of(request).database, kind, owner, wanted)
    return {"sign_offs": [each.as_dict() for each in found]}


@routes.post("/reconciliation/sign-offs")
async def sign(request: Request, actor: Changer, body: Signature) -> dict[str, Any]:
    """Sign a month off; 409 says what is missing."""
    signed = partial(
        sign_off, services_of(request).database, body.kind, body.owner, month_of(body.period), _by(actor, body.by), body.note,
        datetime.now(UTC), force=body.force, actor=actor.title,
    )  # fmt: skip
    try:
        return (await run_in_threadpool(signed)).as_dict()
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="by") from None


def _by(actor: Actor, given: str | None) -> str:
    """Who decides: a member in its own name, whoever has the admin key in the name it gives."""
    if actor is not ADMIN_KEY:
        return actor.title
    if given is None:
        raise InvalidValue("by is missing; with the admin key, say who decides.", param="by")
    return given
