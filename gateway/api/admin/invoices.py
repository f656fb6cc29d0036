"""/admin/api/invoices: what tenants were billed, with the lines, as JSON and as PDF."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import services_of
from gateway.api.admin.values import month_of
from gateway.billing.invoices.show import line_requests, list_invoices, read_credit_note, read_invoice
from gateway.errors import ConfigError, Conflict, InvalidValue

routes = APIRouter()
Limit = Annotated[int, Query(ge=1, le=1000)]


@routes.get("/invoices")
async def invoices(
    request: Request, tenant: str | None = None, period: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Invoices in any state, newest first."""
    month = month_of(period) if period is not None else None
    found = await run_in_threadpool(list_invoices, services_of(request).database, tenant, month, limit)
    return {"invoices": [each.summary() for each in found]}


@routes.get("/invoices/{number}")
async def one_invoice(request: Request, number: str) -> dict[str, Any]:
    """One invoice by number or id, with lines and credit notes."""
    return (await run_in_threadpool(read_invoice, services_of(request).database, number)).as_dict()


@routes.get("/invoices/{number}/lines/{line}/requests")
async def requests_of_line(
    request: Request, number: str, line: int, limit: Limit = 100, after: str | None = None
) -> dict[str, Any]:
    """The requests that one line is the sum of; `next` is the `after` of the following page."""
    database = services_of(request).database
    try:
        return (await run_in_threadpool(line_requests, database, number, line, limit, after)).as_dict()
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="line") from None


@routes.get("/invoices/{number}/pdf", response_class=Response)
async def invoice_as_pdf(request: Request, number: str) -> Response:
    """An invoice or a credit note as PDF."""
    document = await run_in_threadpool(_pdf, request, number)
    headers = {"content-disposition": "attachment"}
    return Response(document, media_type="application/pdf", headers=headers)


def _pdf(request: Request, number: str) -> bytes:
    from gateway.billing.invoices.pdf import credit_note_pdf, invoice_pdf

    services = services_of(request)
    font = services.catalog.billing.font
    credited = read_credit_note(services.database, number)
    try:
        if credited is not None:
            return credit_note_pdf(*credited, font)
        return invoice_pdf(read_invoice(services.database, number), font)
    except ConfigError as error:
        raise Conflict(f"{number} cannot be printed: {error}") from error
