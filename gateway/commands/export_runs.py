"""`penstock export runs` and `run`: how scheduled exports went, and one of them now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError


@click.command()
@click.option("--name", metavar="NAME", help="Only this export.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Runs to show.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Go on before this run.")
@config_option
@data_dir_option
@json_option
def runs(
    name: str | None, limit: int, before: int | None, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Runs of scheduled exports, newest first."""
    from gateway.billing.exports.scheduled.run import list_runs
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        page = list_runs(database, name, limit, before)
    if as_json:
        print_json(page)
    elif page["runs"]:
        _print_runs(page["runs"])
    else:
        click.echo("No export has run yet. Scheduled ones stand under `exports` in penstock.yaml.")


@click.command()
@click.argument("name")
@click.option("--period", metavar="PERIOD", help="A month 2026-11 or a day 2026-11-30. [default: the last that is due]")
@config_option
@data_dir_option
@json_option
def run(name: str, period: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Run a scheduled export now. Exit code 1 when it failed; it is tried again by itself."""
    import time

    from gateway.billing.exports.scheduled.run import ask, work
    from gateway.commands.configuration import load_catalog
    from gateway.commands.database import open_database
    from gateway.jobs.exports import office_of

    settings = settings_with(config=config, data_dir=data_dir)
    catalog = load_catalog(settings)
    with open_database(settings) as database:
        office = office_of(settings, catalog, database, time.time)
        try:
            asked = ask(office, name, period, "command")
        except ValueError as error:
            raise ConfigError(f"--period: {error}.") from None
        # The job may have been quicker; then the run is on its way all the same.
        done = work(office, asked["id"]) or asked
    print_json(done) if as_json else _print_runs([done])
    if done["error"]:
        click.echo(f"penstock: {done['error']}", err=True)
    sys.exit(1 if done["error"] else 0)


def _print_runs(found: list[dict[str, Any]]) -> None:
    from gateway.commands.table import print_table

    columns = ("id", "name", "period", "state", "period_state", "attempts", "bytes", "destination", "error")
    rows = [[str(each[name] if each[name] is not None else "-") for name in columns] for each in found]
    print_table(columns, rows, right={"id", "attempts", "bytes"})
