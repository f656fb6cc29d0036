"""`penstock requests`: metered requests, newest first, a page at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError
from gateway.types import Outcome

if TYPE_CHECKING:
    from gateway.reports.requests.queries import RequestPage

FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m"]
SHOWN = ("request_id", "started_at", "tenant", "key_name", "model", "outcome", "charge_usd")


@click.command(short_help="Requests one by one.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@click.option("--project", metavar="NAME", help="Only of this project.")
@click.option("--key", metavar="ID", help="Only of the key with this id.")
@click.option("--user", metavar="NAME", help="Only for this end user.")
@click.option("--model", metavar="NAME", help="Only answered by this model.")
@click.option("--outcome", type=click.Choice(get_args(Outcome)), help="Only ended so.")
@click.option("--session", metavar="ID", help="Only of this agent run.")
@click.option("--tag", metavar="TAG", help="Only with this tag.")
@click.option("--since", type=click.DateTime(FORMS), help="First moment, UTC.")
@click.option("--until", type=click.DateTime(FORMS), help="End, not included, UTC.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="Requests on the page.")
@click.option("--before", metavar="CURSOR", help="The page after the one that gave this as `next`.")
@config_option
@data_dir_option
@json_option
def requests(
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """List metered requests that have everything that is given, newest first."""
    from gateway.commands.database import open_database
    from gateway.reports.requests.queries import RequestFilter, page_of_requests

    settings = settings_with(config=config, data_dir=data_dir)
    with open_database(settings) as database:
        try:
            page = page_of_requests(
                database, limit, before, RequestFilter(**wanted, since=_utc(since), until=_utc(until))
            )
        except ValueError as error:
            raise ConfigError(f"--before: {error}") from None
    print_json(page.as_dict()) if as_json else _print(page)


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _print(page: RequestPage) -> None:
    from gateway.commands.table import print_table

    print_table(SHOWN, [[str(row[name] or "-") for name in SHOWN] for row in page.requests], right=("charge_usd",))
    if page.next is not None:
        click.echo(f"more: --before {page.next}", err=True)
