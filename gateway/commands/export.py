"""`penstock export`: one month as FOCUS, CSV, Parquet or a journal, in a folder of its own with a manifest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from gateway.commands.export_runs import run, runs
from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.billing.exports import Exported

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@click.group(short_help="Usage and money of a month as files.")
def export() -> None:
    """Usage and money of a month as files that add up to the ledger, with checksums."""


export.add_command(runs)
export.add_command(run)


def _options(command: Decorated) -> Decorated:
    """What all exports take."""
    command = json_option(data_dir_option(config_option(command)))
    command = click.option("--force", is_flag=True, help="Write files again that are there and whole.")(command)
    folder = click.Path(file_okay=False, path_type=Path)
    command = click.option("--out", required=True, type=folder, metavar="DIR", help="Where its folder is made.")(
        command
    )
    return click.option("--period", required=True, metavar="YYYY-MM", help="The month, UTC.")(command)


def _scope_options(command: Decorated) -> Decorated:
    """Whose money, and of whom."""
    command = click.option("--tenant", metavar="NAME", help="Only this tenant. [default: all]")(command)
    views = click.Choice(("tenant", "provider"))
    text = "tenant: what tenants pay; provider: what providers ask."
    return click.option("--view", type=views, default="tenant", show_default=True, help=text)(command)


@export.command()
@_options
@_scope_options
@click.option("--operator", metavar="NAME", help="Who sells to the tenants. [default: `billing.issuer`, else Penstock]")
@click.option("--format", "form", type=click.Choice(("csv", "parquet")), default="csv", show_default=True)
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY", help="Split rows by this tag, in the column Tags; repeatable."
)
def focus(**given: Any) -> None:
    """FOCUS 1.4: Cost and Usage, Billing Period and, with invoices, Invoice Detail."""
    _run("focus", **given)


@export.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check an export's files against the checksums in its manifest. Exit code 1 when one differs."""
    from gateway.billing.exports.manifest import check_folder

    try:
        inputs, problems = check_folder(folder)
    except ValueError as error:
        raise ConfigError(f"{error}; name the folder of one export.") from None
    if as_json:
        print_json({"folder": str(folder), "ok": not problems, "inputs": inputs, "problems": problems})
    else:
        for problem in problems:
            click.echo(f"penstock: {problem}", err=True)
        if not problems:
            click.echo(f"{inputs['export']} of {inputs['period']} ({inputs['period_state']}) is whole.")
    sys.exit(1 if problems else 0)


@export.command()
@_options
@_scope_options
def csv(**given: Any) -> None:
    """Usage as CSV, one row per request."""
    _run("usage", form="csv", **given)


@export.command()
@_options
@_scope_options
def parquet(**given: Any) -> None:
    """Usage as Parquet, one row per request."""
    _run("usage", form="parquet", **given)


@export.command()
@_options
def journal(**given: Any) -> None:
    """The general ledger's journal as CSV: per day and account, debits and credits."""
    _run("journal", form="csv", **given)


def _run(
    what: Literal["focus", "usage", "journal"],
    *,
    form: Literal["csv", "parquet"],
    period: str,
    out: Path,
    force: bool,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    from gateway.billing.exports import Month, Order
    from gateway.billing.exports import export as write_export
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import configuration

    settings = settings_with(config=config, data_dir=data_dir)
    try:
        month = Month.parse(period)
    except ValueError as error:
        raise ConfigError(f"--period: {error}.") from None
    if month.start > datetime.now(UTC):
        raise ConfigError(f"--period is {period!r}, which has not begun.")
    if what == "focus":
        issuer = configuration(settings).billing.issuer
        rest["operator"] = rest["operator"] or (issuer.name if issuer is not None else "Penstock")
        if not rest["operator"].strip():
            raise ConfigError("--operator is empty; give the name that invoices are issued under.")
    order = Order(what, month, form, **rest)
    with open_database(settings) as database:
        done = write_export(database, order, out, force=force)
    print_json(done.as_dict()) if as_json else _print(done)


def _print(done: Exported) -> None:
    from gateway.commands.table import print_table

    numbers = ("rows", "bytes")
    names = ("name", "state", *numbers, "total")
    print_table(
        names,
        [[str(file[name]) for name in names] for file in map(_with_total, done.as_dict()["files"])],
        right=numbers,
    )
    click.echo(f"In {done.folder}, with their checksums in manifest.json.")
    if done.inputs["period_state"] == "open":
        click.echo(f"{done.inputs['period']} is still open: its numbers may grow until it is closed.")


def _with_total(file: dict[str, Any]) -> dict[str, Any]:
    """The sum that matters most of a file."""
    shown = ("BilledCost", "charge_usd", "debit_usd")
    total = next((f"{file['totals'][name]} USD" for name in shown if name in file["totals"]), "")
    return {**file, "total": total}
