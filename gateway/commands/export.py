"""`penstock export`: one month as FOCUS, CSV, Parquet or a journal, in a folder of its own with a manifest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.billing.exports import Exported

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@click.group(short_help="Usage and money of a month as files.")
def export() -> None:
    """Usage and money of a month as files that add up to the ledger, with checksums."""


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
@click.option("--operator", default="Penstock", show_default=True, metavar="NAME", help="Who sells to the tenants.")
@click.option("--format", "form", type=click.Choice(("csv", "parquet")), default="csv", show_default=True)
def focus(**given: Any) -> None:
    """FOCUS 1.4: Cost and Usage and Billing Period."""
    _run("focus", **given)


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
    from gateway.billing.exports import BillingMonth, Order
    from gateway.billing.exports import export as write_export
    from gateway.commands.database import open_database

    try:
        month = BillingMonth.parse(period)
    except ValueError as error:
        raise ConfigError(f"--period: {error}.") from None
    if month.start > datetime.now(UTC):
        raise ConfigError(f"--period is {period!r}, which has not begun.")
    if not rest.get("operator", "Penstock").strip():
        raise ConfigError("--operator is empty; give the name that invoices are issued under.")
    order = Order(what, month, form, **rest)
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
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


def _with_total(file: dict[str, Any]) -> dict[str, Any]:
    """The sum that matters most of a file."""
    shown = ("BilledCost", "charge_usd", "debit_usd")
    total = next((f"{file['totals'][name]} USD" for name in shown if name in file["totals"]), "")
    return {**file, "total": total}
