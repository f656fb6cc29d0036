"""`penstock ledger verify`: whether usage, rated lines, holds and ledger agree; exit 1 when they do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with

if TYPE_CHECKING:
    from gateway.billing.ledger import Verification


@click.group(short_help="Check the books.")
def ledger() -> None:
    """The double-entry ledger."""


@ledger.command()
@config_option
@data_dir_option
@json_option
def verify(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Check that every transaction sums to zero, no hold is orphaned, and usage and ledger agree."""
    from gateway.billing.ledger import verify as verify_ledger
    from gateway.commands.database import open_database

    settings = settings_with(config=config, data_dir=data_dir)
    with open_database(settings) as database:
        result = verify_ledger(database, settings.spool)
    if as_json:
        print_json(result.as_dict())
    else:
        _print(result)
    sys.exit(0 if result.ok else 1)


def _print(result: Verification) -> None:
    for name, value in result.as_dict().items():
        if name not in {"ok", "problems", "cost_pico", "charge_pico"}:
            click.echo(f"{name.replace('_', ' '):<22}{value}")
    for problem in result.problems:
        examples = ", ".join(problem.examples)
        click.echo(f"BROKEN: {problem.rule}: {problem.count} times, for example {examples}", err=True)
    if result.ok:
        click.echo("The books are right.")
