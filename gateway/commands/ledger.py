"""`penstock ledger verify`: whether usage, rated lines, holds and ledger agree; exit 1 when they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with


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
    from gateway.commands.data_folder import DataFolder
    from gateway.commands.database import open_database

    settings = settings_with(config=config, data_dir=data_dir)
    with open_database(settings) as database:
        result = verify_ledger(database, DataFolder(settings.data_dir).spool)
    document = result.as_dict()
    if as_json:
        print_json(document)
    else:
        for name, value in document.items():
            click.echo(f"{name:<24}{value}")
    sys.exit(0 if document["ok"] else 1)
