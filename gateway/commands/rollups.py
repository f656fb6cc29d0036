"""`penstock rollups rebuild`: make the sums by hour and day of a month again from its requests."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError


@click.group(short_help="Sums of usage by hour and day.")
def rollups() -> None:
    """Sums of usage by hour and day, which reports are read from."""


@rollups.command()
@click.option("--period", required=True, metavar="YYYY-MM", help="The month, UTC.")
@config_option
@data_dir_option
@json_option
def rebuild(period: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Make the sums of a month again; `penstock ledger verify` says when that is needed."""
    from gateway.billing.periods.month import Month
    from gateway.commands.database import open_database
    from gateway.metering.rebuild import rebuild_month

    try:
        month = Month.parse(period)
    except ValueError as error:
        raise ConfigError(f"--period: {error}") from None
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        rows = rebuild_month(database, month.start)
    if as_json:
        print_json({"period": str(month), "rows": rows})
    else:
        click.echo(f"{month}: {rows} sums by hour")
