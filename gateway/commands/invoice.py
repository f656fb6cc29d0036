"""`penstock invoice`: draft, close, list, show, print, void and credit invoices; what is not allowed changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import note_change
from gateway.errors import ConfigError, PenstockError, StartupError

if TYPE_CHECKING:
    from gateway.billing.invoices.document import Invoice
    from gateway.billing.invoices.show import LineRequests

Result = TypeVar("Result")

period_option = click.option("--period", required=True, metavar="YYYY-MM", help="Calendar month, UTC.")


@click.group(short_help="Close a month, show and print invoices.")
def invoice() -> None:
    """Invoices of rated usage: drafted, closed with a number, voided, credited."""


@invoice.command()
@period_option
@click.option("--tenant", required=True, help="Whose invoice.")
@config_option
@data_dir_option
@json_option
def draft(period: str, tenant: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show what the invoice of a month would be now; nothing is closed, numbered or booked."""
    from gateway.billing.invoices.issue import draft_invoice
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import check_tenant, configuration, month_given, parties_of

    settings = settings_with(config=config, data_dir=data_dir)
    month, config_file = month_given(period), configuration(settings)
    with open_database(settings) as database:
        check_tenant(config_file, database, tenant)
        drafted = draft_invoice(database, tenant, month, parties_of(config_file, tenant), datetime.now(UTC))
    _show(drafted, as_json)


@invoice.command()
@period_option
@click.option("--tenant", help="Only this tenant. [default: every tenant with something to bill]")
@config_option
@data_dir_option
@json_option
def close(period: str, tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Close a month that has ended and finalise its invoices. Exit code 1 when one could not be closed."""
    from gateway.billing.invoices.issue import close_period, tenants_to_close
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import check_tenant, configuration, month_given, parties_of

    settings = settings_with(config=config, data_dir=data_dir)
    month, config_file = month_given(period), configuration(settings)
    done: list[Invoice] = []
    refused: dict[str, str] = {}
    with open_database(settings) as database:
        if tenant is not None:
            check_tenant(config_file, database, tenant)
        for name in [tenant] if tenant is not None else tenants_to_close(database, month):
            try:
                done.append(close_period(database, name, month, parties_of(config_file, name), datetime.now(UTC)))
            except PenstockError as error:
                refused[name] = error.message
            else:
                note_change(database, "invoice.close", f"{name} {month}", name, {"invoice": done[-1].number})
    if not done and not refused:
        raise StartupError(f"there is nothing to close in {month}: no tenant has usage there that is not invoiced.")
    if as_json:
        problems = [{"tenant": name, "reason": reason} for name, reason in refused.items()]
        print_json({"period": str(month), "invoices": [each.as_dict() for each in done], "refused": problems})
    elif done:
        _print_list(done)
    for name, reason in refused.items() if not as_json else ():
        click.echo(f"penstock: {name}: {reason}", err=True)
    sys.exit(1 if refused else 0)


@invoice.command("list")
@click.option("--tenant", help="Only this tenant.")
@click.option("--period", metavar="YYYY-MM", help="Only this month.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, period: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Invoices in any state, newest first."""
    from gateway.billing.invoices.show import list_invoices
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import month_given

    month = month_given(period) if period is not None else None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        found = list_invoices(database, tenant, month)
    if as_json:
        print_json({"invoices": [each.summary() for each in found]})
    elif found:
        _print_list(found)
    else:
        click.echo("There are no invoices. `penstock invoice close --period YYYY-MM` makes them.")


@invoice.command()
@click.argument("number_or_id")
@config_option
@data_dir_option
@json_option
def show(number_or_id: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """One invoice with its lines and credit notes."""
    from gateway.billing.invoices.show import read_invoice
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        found = read_invoice(database, number_or_id)
    _show(found, as_json)


@invoice.command()
@click.argument("number_or_id")
@click.option("--line", type=click.IntRange(1), required=True, metavar="N", help="Which line, counted from 1.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Requests to show.")
@click.option("--after", metavar="REQUEST_ID", help="Go on after this request.")
@config_option
@data_dir_option
@json_option
def requests(
    number_or_id: str,
    line: int,
    limit: int,
    after: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """The requests that one line is the sum of."""
    from gateway.billing.invoices.show import line_requests
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        page = _checked(lambda: line_requests(database, number_or_id, line, limit, after))
    print_json(page.as_dict()) if as_json else _print_requests(page)


@invoice.command()
@click.argument("number_or_id")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE")
@config_option
@data_dir_option
def pdf(number_or_id: str, out: Path, config: Path | None, data_dir: Path | None) -> None:
    """Write an invoice or a credit note as PDF; the same document gives the same bytes."""
    from gateway.billing.invoices.pdf import credit_note_pdf, invoice_pdf
    from gateway.billing.invoices.show import read_credit_note, read_invoice
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import configuration

    settings = settings_with(config=config, data_dir=data_dir)
    font = configuration(settings).billing.font
    with open_database(settings) as database:
        credited = read_credit_note(database, number_or_id)
        document = (
            credit_note_pdf(*credited, font) if credited else invoice_pdf(read_invoice(database, number_or_id), font)
        )
    try:
        out.write_bytes(document)
    except OSError as error:
        raise StartupError(f"cannot write {str(out)!r}: {error.strerror}.") from error
    click.echo(f"{out} is written.")


@invoice.command()
@click.argument("number_or_id")
@click.option("--reason", required=True, help="Stays with the invoice.")
@config_option
@data_dir_option
@json_option
def void(number_or_id: str, reason: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Take a finalised invoice back, to close its month again with the right details."""
    from gateway.billing.invoices.issue import void_invoice
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        done = _checked(lambda: void_invoice(database, number_or_id, reason, datetime.now(UTC)))
        note_change(database, "invoice.void", done.number or done.id, done.tenant, {"reason": reason})
    _show(done, as_json)


@invoice.command()
@click.argument("number_or_id")
@click.option("--amount", metavar="USD", help="What to give back, tax included.")
@click.option("--full", is_flag=True, help="Give back all that is left of the invoice.")
@click.option("--reason", required=True, help="Stands on the credit note.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key gives money back once, for ever.")
@config_option
@data_dir_option
@json_option
def credit(
    number_or_id: str,
    amount: str | None,
    full: bool,
    reason: str,
    key: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Write a credit note on a finalised invoice, never for more than is left of it."""
    from gateway.billing.invoices.credit import credit_invoice
    from gateway.billing.invoices.show import read_invoice
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import cents_given

    if (amount is None) != full:
        raise ConfigError("give either --amount or --full, not both or neither.")
    cents = cents_given(amount, "--amount") if amount is not None else None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        now = datetime.now(UTC)
        note = _checked(lambda: credit_invoice(database, number_or_id, cents, reason, now, key))
        if note.created_at == now:  # an earlier one stands in the audit log already
            tenant = read_invoice(database, note.invoice_id).tenant
            note_change(database, "invoice.credit", note.number, tenant, note.as_dict())
    if as_json:
        print_json(note.as_dict())
    else:
        click.echo(f"{note.number}: {note.as_dict()['amount']} USD given back.")


def _checked(do: Callable[[], Result]) -> Result:
    """What a value does not allow is an error of the command line."""
    try:
        return do()
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _show(found: Invoice, as_json: bool) -> None:
    if as_json:
        print_json(found.as_dict())
        return
    from gateway.commands.table import print_table

    document = found.as_dict()
    for name in ("number", "id", "state", "tenant", "period", "due_at", "void_reason"):
        if document[name]:
            click.echo(f"{name.replace('_', ' '):<12}{document[name]}")
    columns = ("line", "description", "quantity", "usd_per_million", "amount")
    rows = [[str(line[column] if line[column] is not None else "") for column in columns] for line in document["lines"]]
    print_table(columns, rows, right={"line", "quantity", "usd_per_million", "amount"})
    for name in ("usage", "credits", "net", "tax", "total", "credited"):
        click.echo(f"{name:<12}{document[name]}")


def _print_list(found: list[Invoice]) -> None:
    from gateway.commands.table import print_table

    columns = ("number", "id", "tenant", "period", "state", "net", "tax", "total", "credited")
    rows = [[str(each.summary()[column] or "-") for column in columns] for each in found]
    print_table(columns, rows, right={"net", "tax", "total", "credited"})


def _print_requests(page: LineRequests) -> None:
    from gateway.commands.table import print_table

    columns = ("request_id", "started_at", "quantity", "amount_usd")
    print_table(columns, [[str(row[column]) for column in columns] for row in page.requests], right=columns[2:])
    if page.next:
        click.echo(f"More with --after {page.next}")
