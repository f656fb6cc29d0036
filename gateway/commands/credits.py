"""`penstock credits`: give credits to a tenant, list what is left of them, expire what was not drawn in time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import note_change
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.billing.grants.burn_down import Grant

FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


@click.group("credits", short_help="Give, list and expire credits.")
def credits_() -> None:
    """Credits of a tenant, drawn when its periods are invoiced."""


@credits_.command()
@click.option("--tenant", required=True, help="Who gets the credit.")
@click.option("--amount", required=True, metavar="USD", help="Whole cents.")
@click.option("--reason", required=True, help="Stands on the invoices that it pays.")
@click.option("--priority", type=int, default=100, show_default=True, help="From 0 to 1000; the lowest is drawn first.")
@click.option("--effective", type=click.DateTime(FORMS), help="First moment, UTC. [default: now]")
@click.option("--expires", type=click.DateTime(FORMS), help="End, not included, UTC. [default: never]")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key gives the credit once, for ever.")
@config_option
@data_dir_option
@json_option
def grant(tenant: str, amount: str, config: Path | None, data_dir: Path | None, as_json: bool, **given: Any) -> None:
    """Give a credit to a tenant."""
    from gateway.billing.grants.give import NewGrant, give
    from gateway.commands.database import open_database
    from gateway.commands.invoice_details import cents_given, check_tenant, configuration

    settings = settings_with(config=config, data_dir=data_dir)
    wanted = NewGrant(
        tenant,
        cents_given(amount, "--amount"),
        given["reason"].strip(),
        given["priority"],
        _utc(given["effective"]),
        _utc(given["expires"]),
    )
    config_file = configuration(settings)
    with open_database(settings) as database:
        check_tenant(config_file, database, tenant)
        try:
            made = give(database, wanted, now := datetime.now(UTC), given["key"])
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        if made.created_at == now:  # an earlier one stands in the audit log already
            note_change(database, "credits.grant", made.id, tenant, _describe(made))
    print_json(_describe(made)) if as_json else _print([made])


@credits_.command("list")
@click.option("--tenant", help="Only this tenant.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Credits with what is left of each, oldest first."""
    from gateway.billing.grants.give import list_grants
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        found = list_grants(database, tenant)
    if as_json:
        print_json({"credits": [_describe(each) for each in found]})
    elif found:
        _print(found)
    else:
        click.echo("There are no credits. Give one with `penstock credits grant`.")


@credits_.command()
@config_option
@data_dir_option
@json_option
def expire(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Book what is left of ended credits as breakage; those that an unclosed month may still draw on wait."""
    from gateway.billing.grants.give import expire_grants
    from gateway.commands.database import open_database

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        done = expire_grants(database, datetime.now(UTC))
        for each in done.expired:
            note_change(database, "credits.expire", each.id, each.tenant)
    if as_json:
        print_json({name: [_describe(each) for each in getattr(done, name)] for name in ("expired", "waiting")})
        return
    click.echo(
        f"{len(done.expired)} expired, {len(done.waiting)} wait for a month that ended before and is not closed."
    )
    if done.expired or done.waiting:
        _print([*done.expired, *done.waiting])


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _describe(found: Grant) -> dict[str, Any]:
    from gateway.money import format_cents

    return {
        "id": found.id,
        "tenant": found.tenant,
        "amount": format_cents(found.amount_cents),
        "left": format_cents(found.left_cents),
        "priority": found.priority,
        "effective_at": found.effective_at.isoformat(),
        "expires_at": found.expires_at.isoformat() if found.expires_at else None,
        "reason": found.reason,
        "created_at": found.created_at.isoformat(),
    }


def _print(found: list[Grant]) -> None:
    from gateway.commands.table import print_table

    columns = ("id", "tenant", "amount", "left", "priority", "effective_at", "expires_at", "reason")
    rows = [
        [str(value) if (value := _describe(each)[column]) is not None else "-" for column in columns] for each in found
    ]
    print_table(columns, rows, right={"amount", "left", "priority"})
