"""`penstock retention`: which requests are past their time; --apply removes them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.billing.retention.remove import Plan


@click.command(short_help="Remove requests that are past their time.")
@click.option("--apply", "really", is_flag=True, help="Remove them; without it nothing is changed.")
@config_option
@data_dir_option
@json_option
def retention(really: bool, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show which months `retention:` of the configuration lets go, and why others have to stay."""
    from gateway.billing.retention.remove import apply, plan
    from gateway.commands.configuration import configured_retention
    from gateway.commands.database import open_database

    settings = settings_with(config=config, data_dir=data_dir)
    rules = configured_retention(settings)
    if rules.requests_days is None and rules.explanations_days is None:
        raise ConfigError(
            "the configuration keeps everything. Add for example `retention: {requests_days: 400}` and name it with --config."
        )
    with open_database(settings) as database:
        found = (apply if really else plan)(database, rules, datetime.now(UTC))
    if as_json:
        print_json({"applied": really, **found.as_dict()})
    else:
        _print(found, really)


def _print(found: Plan, really: bool) -> None:
    goes = "removed" if really else "would be removed"
    for each in found.requests:
        state = f"stays: {'; '.join(each.needed)}" if each.needed else goes
        click.echo(f"{each.month}  {each.requests} requests  {state}")
    for month in found.explanations:
        click.echo(f"{month}  explanations  {goes}")
    if not found.requests and not found.explanations:
        click.echo("Nothing is past its time.")
    elif not really:
        click.echo("Nothing has been changed; --apply does it.")
