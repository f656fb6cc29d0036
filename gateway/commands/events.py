"""`penstock events`: what other systems have not taken yet, and sending again what was given up."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with


@click.group(short_help="Events and alerts that are sent out.")
def events() -> None:
    """The outbox: metered requests and alerts until their receivers have taken them."""


@events.command("list", short_help="What has not been taken yet.")
@click.option("--dead", is_flag=True, help="Only messages that were given up.")
@config_option
@data_dir_option
@json_option
def list_(dead: bool, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show messages that were given up or are tried again, with the reason, and how many events wait behind them."""
    from gateway.commands.database import open_database
    from gateway.commands.table import print_table
    from gateway.jobs.outbox.listing import list_events

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        listing = list_events(database, dead=True if dead else None)
    if as_json:
        print_json(listing)
        return
    rows = [
        [
            message["id"],
            message["state"],
            message["destination"],
            message["tenant"],
            str(message["events"]),
            str(message["attempts"]),
            (message["dead_at"] or message["next_at"])[:19],
            message["error"] or "",
        ]
        for message in listing["messages"]
    ]
    columns = ("message", "state", "destination", "tenant", "events", "attempts", "next or given up (UTC)", "error")
    print_table(columns, rows, right=("events", "attempts"))
    waiting = ", ".join(f"{count} for {name}" for name, count in sorted(listing["unsent"].items()))
    click.echo(f"given up: {listing['dead']} messages; not tried yet: {waiting or 'nothing'}")


@events.command("retry", short_help="Send again what was given up.")
@click.argument("message", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every message that was given up.")
@config_option
@data_dir_option
@json_option
def retry(
    message: tuple[str, ...], everything: bool, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Try the messages with these ids again, as if they were new; they keep their ids."""
    from gateway.commands.database import open_database
    from gateway.commands.owners import actor
    from gateway.jobs.outbox.listing import retry_events

    if everything == bool(message):
        raise click.UsageError("name the messages, or give --all.")
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        revived = retry_events(database, None if everything else message, actor(), time.time())
    if as_json:
        print_json({"retried": revived})
    else:
        click.echo(f"{len(revived)} messages are sent again.")
