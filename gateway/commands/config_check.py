"""`penstock config check [FILE]`: everything that is wrong in a configuration, or what it would serve; exit 2 when wrong."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import json_option, print_json
from gateway.errors import ConfigError, StartupError
from gateway.settings import read_secret, read_settings

if TYPE_CHECKING:
    from gateway.catalog import Catalog


@click.group(short_help="Check a configuration.")
def config() -> None:
    """Work with penstock.yaml."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE, or that of PENSTOCK_CONFIG: unknown keys, missing secrets, prices, references. Exit code 2 when wrong."""
    file = file or read_settings().config
    if file is None:
        raise ConfigError("which configuration is to be checked? Name the file, or set PENSTOCK_CONFIG.")
    catalog, problems = _examine(file)
    if as_json:
        print_json({"ok": not problems, "problems": problems, **(_describe(catalog) if catalog else {})})
    elif catalog is not None:
        _print(file, catalog)
    for problem in problems if not as_json else ():
        click.echo(f"penstock: {problem}", err=True)
    sys.exit(2 if problems else 0)


def _examine(file: Path) -> tuple[Catalog | None, list[str]]:
    """The catalog, or what is wrong. Secrets that are not set are all named, not only the first."""
    from gateway.catalog import build_catalog
    from gateway.config import read_config
    from gateway.providers.registry import build_providers

    missing: list[str] = []

    def secret(name: str) -> str:
        value = read_secret(name)
        if value is None and name not in missing:
            missing.append(name)
        return value or secrets.token_hex(16)

    try:
        catalog = build_catalog(read_config(file), str(file), secret)
        build_providers(catalog, engine_url=None)  # reads the scripts of scripted models
        if wrong := _wrong_qualities(file, catalog):
            return None, [*wrong, *(_unset(file, name) for name in missing)]
    except ConfigError as error:
        return None, [*str(error).splitlines(), *(_unset(file, name) for name in missing)]
    return (None, [_unset(file, name) for name in missing]) if missing else (catalog, [])


def _wrong_qualities(file: Path, catalog: Catalog) -> list[str]:
    """What is wrong with `quality` of models, and the names that no artifact of the router knows. Raises ConfigError."""
    if not any(model.quality is not None for model in catalog.models):
        return []
    from gateway.abilities import ability_problems

    return [f"{file}: {problem}" for problem in ability_problems(catalog, partial(_kept, catalog))]


def _kept(catalog: Catalog) -> Iterator[Any]:
    """The artifacts in the database, if there is one that answers: a file can be checked where the gateway does not run."""
    from gateway.commands.database import database_at
    from gateway.db.migrate import check_schema
    from gateway.errors import Unavailable
    from gateway.scorers import kept_routers

    url = read_settings().database(catalog.database)
    file = url.removeprefix("sqlite:///")
    if file != url and not Path(file).exists():
        return
    try:
        with database_at(url) as database:
            check_schema(database)
            yield from kept_routers(database)
    except (Unavailable, StartupError) as error:
        click.echo(f"penstock: warning: artifacts in the database were not looked at: {error}", err=True)


def _unset(file: Path, name: str) -> str:
    return f"{file}: the environment variable {name!r} is referred to as 'env:{name}' and is not set."


def _describe(catalog: Catalog) -> dict[str, Any]:
    from gateway.money import format_usd
    from gateway.types import TIERS

    models = [
        {
            "name": model.name,
            "tier": model.tier,
            "provider": model.provider,
            "upstream_model": model.upstream_model,
            "base_url": model.base_url,
            "input_usd_per_million": format_usd(model.price.rates["input"]) if model.price else "book",
            "output_usd_per_million": format_usd(model.price.rates["output"]) if model.price else "book",
        }
        for model in catalog.models
    ]
    tiers = {tier: [model.name for model in catalog.models_in(tier)] for tier in TIERS if catalog.models_in(tier)}
    return {
        "warnings": list(catalog.warnings),
        "models": models,
        "tiers": tiers,
        "tenants": list(catalog.tenants),
        "keys": [
            {"id": key.id, "name": key.name, "tenant": key.tenant} for key in catalog.keys if not key.pays_for_shadows
        ],
        "policies": {
            name: policy.model_dump(mode="json", exclude_unset=True) for name, policy in catalog.policies.items()
        },
    }


def _print(file: Path, catalog: Catalog) -> None:
    from gateway.commands.table import print_table

    document = _describe(catalog)
    for warning in document["warnings"]:
        click.echo(f"penstock: warning: {warning}", err=True)
    click.echo(f"{file} is right.")
    columns = (
        "name",
        "tier",
        "provider",
        "upstream_model",
        "input_usd_per_million",
        "output_usd_per_million",
        "base_url",
    )
    rows = [[str(model[column] or "-") for column in columns] for model in document["models"]]
    print_table(columns, rows, right=columns[4:6])
    for name, policy in document["policies"].items():
        said = ", ".join(f"{key}: {_short(value)}" for key, value in policy.items())
        click.echo(f"policy {name}: {said or 'as built in'}")
    tenants, keys = document["tenants"], document["keys"]
    click.echo(f"tenants: {', '.join(tenants)}; declared keys: {', '.join(key['name'] for key in keys) or 'none'}")


def _short(value: Any) -> str:
    """A value as it could be written in penstock.yaml, on one line."""
    import orjson

    return value if isinstance(value, str) else orjson.dumps(value).decode()
