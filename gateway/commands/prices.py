"""`penstock prices`: seed, show, check and change the price book; nothing is written without being asked for."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.configuration import known_catalog
from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import note_change
from gateway.commands.price_views import rate, show
from gateway.commands.usage import FORMS
from gateway.errors import ConfigError, StartupError
from gateway.settings import Settings
from gateway.types import BOOKS, METERS, SERVICE_TIERS, Book, Meter, ServiceTier

if TYPE_CHECKING:
    from gateway.billing.prices.choose import Price
    from gateway.db.connect import Database


@click.group(short_help="The price book: seed, show, check and change prices.")
def prices() -> None:
    """What models cost at their providers, and what tenants with a fixed price pay. A change never alters the past."""


@prices.command()
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="A map in litellm's format.")
@click.option("--apply", is_flag=True, help="Write the changes; without it they are only shown.")
@click.option("--remove", is_flag=True, help="With --apply: end the prices that the map does not have any more.")
@config_option
@data_dir_option
@json_option
def sync(
    file: Path | None, apply: bool, remove: bool, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Compare the provider book with a price map, and take it over with --apply. Prices set by hand are kept."""
    from gateway.billing.prices.change import compare
    from gateway.billing.prices.queries import PriceRefused, prices_at, write_prices
    from gateway.billing.prices.seed import installed_map, read_map
    from gateway.commands.database import open_database
    from gateway.commands.price_report import print_sync, sync_document

    path, source = (file, file.name) if file is not None else installed_map()
    now = datetime.now(UTC)
    seed = read_map(path, source, now)
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        found = compare({price.key: price for price in prices_at(database, now, book="provider")}, seed.prices)
        if apply:
            new = [difference.new for difference in (*found.added, *found.changed) if difference.new is not None]
            ended = [difference.old for difference in found.removed if difference.old is not None] if remove else []
            try:
                write_prices(database, new, ended, now)
            except PriceRefused as error:
                raise StartupError(f"{error}. Nothing was written.") from None
            note_change(database, "prices.sync", source, after={"written": len(new), "ended": len(ended)})
    document = sync_document(seed, found, applied=apply, removed=remove)
    print_json(document) if as_json else print_sync(document)


@prices.command("list")
@click.option("--model", metavar="TEXT", help="Only models whose name contains this.")
@click.option("--as-of", type=click.DateTime(FORMS), help="Prices of that moment, UTC. [default: now]")
@config_option
@data_dir_option
@json_option
def list_(model: str | None, as_of: datetime | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """The prices that are valid now, or were or will be at another moment."""
    from gateway.billing.prices.queries import prices_at
    from gateway.commands.database import open_database
    from gateway.commands.price_report import describe, print_prices

    at = _utc(as_of) or datetime.now(UTC)
    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        rows = [describe(price) for price in prices_at(database, at, like=model)]
    if as_json:
        print_json({"as_of": at.isoformat(), "prices": rows})
    elif rows:
        print_prices(rows)
    else:
        click.echo("There is no such price. `penstock prices sync --apply` fills the book.")


@prices.command()
@config_option
@data_dir_option
@json_option
def check(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Models of the configuration without a price, implausible rates, overlapping rows; exit code 1 when there are any."""
    from gateway.billing.prices.check import check_book
    from gateway.commands.database import open_database

    settings = settings_with(config=config, data_dir=data_dir)
    with open_database(settings) as database:
        problems = check_book(database, known_catalog(settings) if settings.config else None, datetime.now(UTC))
    if as_json:
        found = [{"kind": problem.kind, "message": problem.message} for problem in problems]
        print_json({"ok": not problems, "problems": found})
    else:
        for problem in problems:
            click.echo(f"{problem.kind}: {problem.message}", err=True)
        click.echo(f"{len(problems)} problems." if problems else "The prices are right.")
    sys.exit(1 if problems else 0)


@prices.command("set")
@click.argument("model")
@click.option("--meter", type=click.Choice(METERS), required=True, help="What is priced.")
@click.option("--usd-per-million", required=True, metavar="X", help="USD per million tokens; GPU time: per second.")
@click.option("--from", "valid_from", type=click.DateTime(FORMS), help="First moment, UTC. [default: now]")
@click.option("--book", type=click.Choice(BOOKS), help="[default: tenant with --tenant, else provider]")
@click.option("--tenant", metavar="NAME", help="Who pays it; the price takes the place of cost and markup.")
@click.option("--provider", metavar="NAME", help="Who asks it. [default: the one that has the model in the book]")
@click.option("--service-tier", type=click.Choice(SERVICE_TIERS), default="default", show_default=True)
@click.option("--least-tokens", type=click.IntRange(0), default=0, help="For requests of so many input tokens on.")
@click.option("--region", default="", metavar="NAME", help="Only there. [default: everywhere]")
@config_option
@data_dir_option
@json_option
def set_(model: str, config: Path | None, data_dir: Path | None, as_json: bool, **given: Any) -> None:
    """Add one price of MODEL, now or from a later moment on; the price before it ends then."""
    from gateway.billing.prices.queries import PriceRefused, write_prices
    from gateway.commands.database import open_database
    from gateway.commands.price_report import describe

    settings = settings_with(config=config, data_dir=data_dir)
    rate = _rate(given["meter"], given["usd_per_million"])
    with open_database(settings) as database:
        book, owner = _owner(settings, database, model, given["book"], given["tenant"], given["provider"])
        now = datetime.now(UTC)
        price = _price(
            book, owner, model, given["meter"], rate, _utc(given["valid_from"]) or now,
            given["least_tokens"], given["service_tier"], given["region"],
        )  # fmt: skip
        try:
            write_prices(database, [price], [], now)
        except PriceRefused as error:
            raise ConfigError(f"{error}.") from None
        note_change(database, "prices.set", model, given["tenant"], describe(price))
    if as_json:
        print_json(describe(price))
    else:
        click.echo(
            f"{model}: {given['meter']} costs {given['usd_per_million']} USD from {price.valid_from:%F %T} UTC on."
        )


@prices.command()
@click.argument("model")
@click.option("--region", required=True, metavar="NAME", help="As in `book: {region: NAME}` of the models there.")
@click.option("--factor", required=True, metavar="X", help="Times the prices for everywhere: 10 % more is 1.1.")
@click.option("--from", "valid_from", type=click.DateTime(FORMS), help="First moment, UTC. [default: now]")
@click.option("--provider", metavar="NAME", help="Who asks it. [default: the one that has the model in the book]")
@config_option
@data_dir_option
@json_option
def uplift(
    model: str,
    region: str,
    factor: str,
    valid_from: datetime | None,
    provider: str | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Add what MODEL costs in a region: every price for everywhere, times a factor."""
    from gateway.billing.prices.queries import PriceRefused, prices_since, write_prices
    from gateway.commands.database import open_database
    from gateway.commands.price_report import describe, regional_prices

    settings = settings_with(config=config, data_dir=data_dir)
    now = datetime.now(UTC)
    begins = _utc(valid_from) or now
    with open_database(settings) as database:
        _, owner = _owner(settings, database, model, "provider", None, provider)
        known = [row for row in prices_since(database, begins) if (row.model, row.owner) == (model, owner)]
        try:
            added = regional_prices(known, region, factor, begins)
            write_prices(database, added, [], now)
        except (PriceRefused, ValueError) as error:
            raise ConfigError(f"{error}.") from None
        note_change(database, "prices.uplift", model, after={"region": region, "factor": factor, "prices": len(added)})
    if as_json:
        print_json({"prices": [describe(price) for price in added]})
    else:
        click.echo(f"{model}: {len(added)} prices in {region}, {factor} times those for everywhere.")


prices.add_command(show)
prices.add_command(rate)


def _price(
    book: Book,
    owner: str,
    model: str,
    meter: Meter,
    rate: int,
    valid_from: datetime,
    least_tokens: int,
    service_tier: ServiceTier,
    region: str,
) -> Price:
    """The row to write, with its fingerprint as hash of its source."""
    from dataclasses import replace

    from gateway.billing.prices.change import BY_HAND, fingerprint
    from gateway.billing.prices.choose import Price

    price = Price(
        book, owner, model, meter, rate, valid_from,
        least_tokens=least_tokens, service_tier=service_tier, region=region, source=BY_HAND,
    )  # fmt: skip
    return replace(price, source_hash=fingerprint(price))


def _rate(meter: Meter, usd: str) -> int:
    """The rate of a price as typed. Raises ConfigError for what is no price, or one in the wrong unit."""
    from gateway.money import implausible, parse_price

    try:
        rate = parse_price(usd, "--usd-per-million")
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if problem := implausible(meter, rate):
        raise ConfigError(f"--usd-per-million is {usd!r}: {problem}.")
    return rate


def _owner(
    settings: Settings, database: Database, model: str, book: Book | None, tenant: str | None, provider: str | None
) -> tuple[Book, str]:
    """Which book is meant, and whose price it is."""
    from gateway.billing.prices.queries import owners_of
    from gateway.commands.configuration import check_names

    if book == "tenant" or (book is None and tenant is not None):
        if tenant is None or provider is not None:
            raise ConfigError("a price of the tenant book belongs to a tenant: give --tenant, and no --provider.")
        check_names(settings, tenant=tenant, models=[model])
        return "tenant", tenant
    if tenant is not None:
        raise ConfigError("a price of the provider book belongs to a provider: leave out --tenant or --book.")
    owners = owners_of(database, model)
    if provider is None and len(owners) != 1:
        known = f"by {', '.join(owners)}" if owners else "by nobody yet"
        raise ConfigError(f"the book has prices of {model!r} {known}: say with --provider whose price this is.")
    return "provider", provider or owners[0]


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
