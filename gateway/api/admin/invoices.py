"""/admin/api/invoices: what tenants were billed, with the lines, as JSON and as PDF."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.values import month_of
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.show import line_requests, list_invoices, read_credit_note, read_invoice
from gateway.errors import ConfigError, Conflict, InvalidValue, UnknownDocument
from gateway.keys.roles import Actor

routes = APIRouter()
Limit = Annotated[int, Query(ge=1, le=1000)]
Reader = Annotated[Actor, may("invoices.read")]


@routes.get("/invoices")
async def invoices(
    request: Request, actor: Reader, tenant: TenantName = None, period: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Invoices in any state, newest first; drafts are the operator's alone."""
    month = month_of(period) if period is not None else None
    only = tenant_for(actor, tenant)
    drafts = actor.tenant is None
    found = await run_in_threadpool(list_invoices, services_of(request).database, only, month, limit, drafts=drafts)
    return {"invoices": [each.summary() for each in found]}


@routes.get("/invoices/{number}")
async def one_invoice(request: Request, actor: Reader, number: str) -> dict[str, Any]:
    """One invoice by number or id, with lines and credit notes."""
    return (await run_in_threadpool(_invoice, request, actor, number)).as_dict()


@routes.get("/invoices/{number}/lines/{line}/requests")
async def requests_of_line(
    request: Request, actor: Reader, number: str, line: int, limit: Limit = 100, after: str | None = None
) -> dict[str, Any]:
    """The requests that one line is the sum of; `next` is the `after` of the following page."""
    database = services_of(request).database
    await run_in_threadpool(_invoice, request, actor, number)
    try:
        return (await run_in_threadpool(line_requests, database, number, line, limit, after)).as_dict()
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="line") from None


@routes.get("/invoices/{number}/pdf", response_class=Response)
async def invoice_as_pdf(request: Request, actor: Reader, number: str) -> Response:
    """An invoice or a credit note as PDF."""
    document = await run_in_threadpool(_pdf, request, actor, number)
    headers = {"content-disposition": "attachment"}
    return Response(document, media_type="application/pdf", headers=headers)


def _invoice(request: Request, actor: Actor, number: str) -> Invoice:
    """An invoice that the actor may see; for a member of one tenant drafts and those of others do not exist."""
    found = read_invoice(services_of(request).database, number)
    _check(actor, found.tenant if found.state != "draft" else None, number)
    return found


def _check(actor: Actor, tenant: str | None, number: str) -> None:
    if actor.tenant not in (None, tenant):
        raise UnknownDocument(f"no invoice has the number or id {number!r}. `penstock invoice list` shows them.")


def _pdf(request: Request, actor: Actor, number: str) -> bytes:
    from gateway.billing.invoices.pdf import credit_note_pdf, invoice_pdf

    services = services_of(request)
    font = services.catalog.billing.font
    credited = read_credit_note(services.database, number)
    try:
        if credited is not None:
            _check(actor, credited[0].tenant, number)
            return credit_note_pdf(*credited, font)
        return invoice_pdf(_invoice(request, actor, number), font)
    except ConfigError as error:
        raise Conflict(f"{number} cannot be printed: {error}") from error
