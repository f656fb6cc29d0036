"""`penstock limits`: requests, tokens and parallel calls that every owner may take; set and remove them at run time."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gateway.commands.keys import LIMIT_OPTIONS
from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import actor, open_owners, owner_given

NAME = click.Choice(LIMIT_OPTIONS)


@click.group(short_help="See, set and remove rate limits.")
def limits() -> None:
    """Rate limits of tenants, projects, keys, users, models and tags. Running gateways follow within seconds.

    SCOPE is written as in `penstock budgets`; LIMIT is the name it has in the configuration, such as requests_per_minute.
    """


@limits.command("list")
@click.option("--tenant", help="Only this tenant.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Every limit of every owner, from the configuration or set here."""
    from gateway.commands.table import print_table
    from gateway.keys.rules.describe import limit_name
    from gateway.keys.rules.effective import effective

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        rows = [
            {"scope": rung.owner.title, "limit": limit_name(limit.kind, limit.per), "value": limit.limit}
            for rung in effective(catalog, database, time.time(), tenant)
            for limit in rung.allowance.limits
        ]
    if as_json:
        print_json({"limits": rows})
    elif rows:
        columns = ("scope", "limit", "value")
        print_table(columns, [[str(row[column]) for column in columns] for row in rows], right={"value"})
    else:
        click.echo("There are no limits. Give one with `penstock limits set`, or in the configuration.")


@limits.command("set")
@click.argument("scope")
@click.argument("limit", type=NAME)
@click.argument("value", type=click.IntRange(1, 2**62 - 1))
@config_option
@data_dir_option
@json_option
def set_(scope: str, limit: str, value: int, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Give SCOPE a limit, in place of the same one of the configuration."""
    from gateway.keys.rules.change import set_limit

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        owner = owner_given(scope, catalog, database)
        set_limit(database, owner, limit, value, actor=actor(), now=time.time())
    document = {"scope": owner.title, "limit": limit, "value": value}
    print_json(document) if as_json else click.echo(f"{owner.title}: {limit} {value}.")


@limits.command()
@click.argument("scope")
@click.argument("limit", type=NAME)
@config_option
@data_dir_option
@json_option
def remove(scope: str, limit: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End a limit that was set here; the one of the configuration counts again."""
    from gateway.keys.rules.change import remove_limit

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        owner = owner_given(scope, catalog, database)
        remove_limit(database, owner, limit, actor=actor(), now=time.time())
    document = {"scope": owner.title, "limit": limit}
    print_json({"removed": document}) if as_json else click.echo(f"{owner.title}: removed {limit}.")
