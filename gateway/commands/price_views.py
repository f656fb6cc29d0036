"""`penstock prices show` and `penstock prices rate`: what a tenant pays for a model, and rating what had no price."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.types import SERVICE_TIERS, ServiceTier

if TYPE_CHECKING:
    from gateway.billing.prices.book import Prices
    from gateway.catalog import Catalog, Model
    from gateway.types import PriceSheet, Usage

TOKENS = click.IntRange(0, 50_000_000)


@click.command()
@click.argument("model")
@click.option("--tenant", default="default", show_default=True, metavar="NAME", help="Who pays.")
@click.option(
    "--input", "input_tokens", type=TOKENS, default=0, metavar="N", help="Uncached input tokens of an example."
)
@click.option("--cached", type=TOKENS, default=0, metavar="N", help="Its input tokens from the cache.")
@click.option("--output", "output_tokens", type=TOKENS, default=0, metavar="N", help="Its visible output tokens.")
@click.option("--reasoning", type=TOKENS, default=0, metavar="N", help="Its reasoning tokens.")
@click.option("--service-tier", type=click.Choice(SERVICE_TIERS), default="default", show_default=True)
@config_option
@data_dir_option
@json_option
def show(
    model: str,
    tenant: str,
    input_tokens: int,
    cached: int,
    output_tokens: int,
    reasoning: int,
    service_tier: ServiceTier,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """What MODEL of the configuration costs now and what a tenant pays for it, and what an example request would come to."""
    from gateway.billing.prices.book import PriceBook
    from gateway.commands.configuration import check_names
    from gateway.commands.database import open_database
    from gateway.types import Usage

    settings = settings_with(config=config, data_dir=data_dir)
    check_names(settings, tenant=tenant, models=[model])
    catalog = _catalog(settings)
    example = Usage(input=input_tokens, cache_read=cached, output=output_tokens, reasoning=reasoning)
    with open_database(settings) as database:
        book = PriceBook(catalog, database)
        book.renew()
        prices = book.current()
    documents = [_deployment(each, tenant, prices, example, service_tier) for each in catalog.groups[model]]
    if as_json:
        print_json({"model": model, "tenant": tenant, "deployments": documents})
    else:
        _print(documents)


@click.command()
@config_option
@data_dir_option
@json_option
def rate(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Rate what was served without a price and has one now. It may be run at any time and as often as one likes."""
    from gateway.commands.database import open_database
    from gateway.jobs.rate_unpriced import rate_unpriced
    from gateway.money import format_usd

    settings = settings_with(config=config, data_dir=data_dir)
    catalog = _catalog(settings)
    with open_database(settings) as database:
        done = rate_unpriced(database, catalog, datetime.now(UTC).timestamp())
    if as_json:
        print_json(
            {
                "rated": done.calls,
                "cost_usd": format_usd(done.cost_pico),
                "charge_usd": format_usd(done.charge_pico),
                "waiting": dict(sorted(done.waiting.items())),
            }
        )
        return
    click.echo(f"{done.calls} calls rated: {format_usd(done.charge_pico)} USD charged.")
    for name, count in sorted(done.waiting.items()):
        click.echo(f"{count} calls to {name} wait for a price. `penstock prices check` says what it lacks.")


def _catalog(settings: Settings) -> Catalog:
    """The configuration, which says what the models are; its secrets do not matter here."""
    from gateway.commands.configuration import known_catalog

    if settings.config is None:
        raise ConfigError(
            "which models there are is said by a configuration: give one with --config or PENSTOCK_CONFIG."
        )
    return known_catalog(settings)


def _deployment(model: Model, tenant: str, prices: Prices, example: Usage, service_tier: ServiceTier) -> dict[str, Any]:
    from gateway.billing.cost import rate_usage
    from gateway.money import format_usd

    known = prices.costs[model.index] is not None
    cost, charge = prices.cost(model), prices.charge(tenant, model)
    document: dict[str, Any] = {
        "provider": model.provider,
        "upstream_model": model.upstream_model,
        "priced": known,
        "rates": _rates(cost, charge) if known else [],
    }
    if known and example.quantities():
        tokens = example.input_total
        paid = rate_usage(example, charge.at(tokens, service_tier))
        document["example"] = {
            "cost_usd": format_usd(rate_usage(example, cost.at(tokens, service_tier)).total),
            "charge_usd": format_usd(paid.total),
            "charge_source": paid.source,
            "lines": [
                {
                    "meter": line.meter,
                    "quantity": line.quantity,
                    "usd_per_million": format_usd(line.rate),
                    "amount_usd": format_usd(line.amount),
                }
                for line in paid.lines
            ],
        }
    return document


def _rates(cost: PriceSheet, charge: PriceSheet) -> list[dict[str, Any]]:
    """Every rate of both, by service tier and context tier; a tier that one of them lacks costs there what `default` does."""
    from gateway.money import format_usd
    from gateway.types import METERS

    rows = []
    for tier in sorted({*cost.steps, *charge.steps}):
        steps = [*cost.steps.get(tier, cost.steps["default"]), *charge.steps.get(tier, charge.steps["default"])]
        for least in sorted({start for start, _ in steps}):
            asked, paid = cost.at(least, tier), charge.at(least, tier)
            rows += [
                {
                    "service_tier": tier,
                    "least_tokens": least,
                    "meter": meter,
                    "cost_usd_per_million": format_usd(asked.rates[meter]),
                    "charge_usd_per_million": format_usd(paid.rates[meter]),
                }
                for meter in METERS
                if asked.rates[meter] or paid.rates[meter]
            ]
    return rows


def _print(documents: list[dict[str, Any]]) -> None:
    from gateway.commands.table import print_table

    columns = ("service_tier", "least_tokens", "meter", "cost_usd_per_million", "charge_usd_per_million")
    for document in documents:
        click.echo(f"{document['upstream_model']} by {document['provider']}")
        if not document["priced"]:
            click.echo("  has no price now. `penstock prices check` says what it lacks.")
            continue
        rows = [[str(row[name]) for name in columns] for row in document["rates"]]
        print_table(columns, rows, right=("least_tokens", "cost_usd_per_million", "charge_usd_per_million"))
        if example := document.get("example"):
            click.echo(f"The example costs {example['cost_usd']} USD, the tenant pays {example['charge_usd']} USD.")
