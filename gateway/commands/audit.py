"""`penstock audit`: who changed what, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with


@click.command(short_help="Who changed what.")
@click.option("--tenant", help="Only changes of this tenant.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1, 2**62), metavar="ID", help="Only what is older than this entry.")
@config_option
@data_dir_option
@json_option
def audit(
    tenant: str | None, limit: int, before: int | None, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Changes that were made on the command line and through the admin API, newest first."""
    from gateway.commands.database import open_database
    from gateway.commands.table import print_table
    from gateway.db.audit import audit_page

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        page = audit_page(database, limit, before, tenant)
    if as_json:
        print_json({"entries": page.entries, "next": page.next})
        return
    columns = ("id", "at", "actor", "action", "object", "tenant", "before", "after")
    print_table(columns, [[_cell(entry[column]) for column in columns] for entry in page.entries], right={"id"})
    if page.next is not None:
        click.echo(f"\nThere is more: penstock audit --before {page.next}")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={inner}" for name, inner in value.items() if inner not in (None, [], {})) or "-"
    return str(value) if value is not None else "-"
