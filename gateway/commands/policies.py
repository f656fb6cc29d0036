"""`penstock policies`: how `auto` chooses; see policies, set keys of them and take that back while gateways run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import actor, open_owners
from gateway.errors import InvalidValue


@click.group(short_help="See, set and reset routing policies.")
def policies() -> None:
    """Routing policies of the configuration. Running gateways follow within seconds."""


@policies.command("list")
@config_option
@data_dir_option
@json_option
def list_(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Every policy as it counts now, and what was set here."""
    from gateway.routing.policies.describe import policies_now

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        rows = policies_now(catalog, database)
    if as_json:
        print_json({"policies": rows})
        return
    for row in rows:
        click.echo(row["name"])
        for key, value in row["policy"].items():
            given = key in (row["set"] or {}) and key not in row["left_out"]
            click.echo(f"  {key} = {_shown(value)}{'  (set at run time)' if given else ''}")
        for reason in row["left_out"].values():
            click.echo(f"  set at run time and left out: {reason}")


@policies.command("set")
@click.argument("name")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@config_option
@data_dir_option
@json_option
def set_(name: str, settings: tuple[str, ...], config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Set keys of the policy NAME; those that are not named stay. Values are as in penstock.yaml; null resets a key."""
    from gateway.routing.policies.change import set_policy

    given = dict(map(_pair, settings))
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        made = set_policy(database, catalog, name, given, actor=actor(), now=time.time())
    if as_json:
        print_json({"name": name, "policy": made.model_dump(mode="json")})
    else:
        now = made.model_dump(mode="json")
        click.echo(f"{name}: {', '.join(f'{key}={_shown(now.get(key))}' for key in given)}.")


@policies.command()
@click.argument("name")
@config_option
@data_dir_option
@json_option
def reset(name: str, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Let the policy NAME be as it is configured."""
    from gateway.routing.policies.change import reset_policy

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        left = reset_policy(database, catalog, name, actor=actor(), now=time.time())
    if as_json:
        print_json({"name": name, "policy": left.model_dump(mode="json")})
    else:
        click.echo(f"{name}: as it is configured.")


def _pair(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidValue(f"{text!r} is not KEY=VALUE, such as min_quality=0.9.", param="settings")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InvalidValue(f"{key}: {value!r} is not a value as in penstock.yaml.", param=key) from None


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
