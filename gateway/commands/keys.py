"""`penstock keys`: make, list, rotate and revoke keys; a secret is shown once and never again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gateway.callers import Period
from gateway.commands.options import Between, config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import Duration, actor, moment_text, open_owners
from gateway.errors import ConfigError
from gateway.types import TIERS

if TYPE_CHECKING:
    from gateway.config_policies import Routing
    from gateway.keys.change import NewKey
    from gateway.keys.queries import KeyRow
    from gateway.keys.rules.effective import Rung

LIMIT_OPTIONS = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "parallel")
SHARE = Between(0, 1)
COUNT = click.IntRange(1, 2**62 - 1)


@click.group(short_help="Make, list, rotate and revoke keys.")
def keys() -> None:
    """Keys of the API. They are stored as hashes; a lost secret cannot be shown again, only rotated."""


@keys.command()
@click.option("--name", required=True, help="Unique within the tenant; shown in reports instead of the secret.")
@click.option("--tenant", default="default", show_default=True, help="Who is billed; declared in the configuration.")
@click.option("--project", help="A project of the tenant; declared in the configuration.")
@click.option("--model", "models", multiple=True, help="A model it may ask for (repeat); all when absent.")
@click.option("--tier", "tiers", multiple=True, type=click.Choice(TIERS), help="A tier it may be served from (repeat).")
@click.option("--budget-usd", "budgets", multiple=True, metavar="USD[/PERIOD]", help="Most per period, 5/day (repeat).")
@click.option("--budget-period", type=click.Choice(get_args(Period)), default="month", help="Of a budget without one.")
@click.option("--requests-per-minute", type=COUNT)
@click.option("--tokens-per-minute", type=COUNT)
@click.option("--requests-per-day", type=COUNT)
@click.option("--tokens-per-day", type=COUNT)
@click.option("--parallel", type=COUNT, help="Requests in flight at once.")
@click.option("--min-quality", type=SHARE, help="Least share of the best quality that its auto requests keep, 0 to 1.")
@click.option("--max-cost-usd", help="Most that one of its requests may cost at worst.")
@click.option("--max-premium-share", type=SHARE, help="Largest share of auto requests for premium and deep models.")
@click.option("--local-only", is_flag=True, help="Only models of the operator's own may answer.")
@click.option("--region", "regions", multiple=True, help="Only models that run in these regions may answer (repeat).")
@click.option("--expires-in", type=Duration(), help="For example 30d; never when absent.")
@config_option
@data_dir_option
@json_option
def create(name: str, tenant: str, as_json: bool, config: Path | None, data_dir: Path | None, **given: Any) -> None:
    """Make a key and show its secret, once."""
    from gateway.keys.change import KeyOrder, check_order, create_key

    settings = settings_with(config=config, data_dir=data_dir)
    order = KeyOrder(
        name=name,
        tenant=tenant,
        project=given["project"],
        models=frozenset(given["models"]) or None,
        tiers=frozenset(given["tiers"]) or None,
        budgets=_budgets(given["budgets"], given["budget_period"]),
        limits={limit: given[limit] for limit in LIMIT_OPTIONS if given[limit] is not None},
        expires_at=time.time() + given["expires_in"] if given["expires_in"] is not None else None,
        routing=_routing(given),
    )
    with open_owners(settings) as (catalog, database):
        check_order(order, catalog, any_model=settings.config is None)
        made = create_key(database, order, actor())
    _show(made, as_json, {})


@keys.command("list")
@click.option("--tenant", help="Only this tenant.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """All keys made so far, revoked ones too; never their secrets."""
    from gateway.keys.queries import list_keys
    from gateway.keys.rules.effective import effective

    now = time.time()
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        rungs = {
            rung.owner.name: rung for rung in effective(catalog, database, now, tenant) if rung.owner.kind == "key"
        }
        rows = [_describe(row, rungs.get(row.id), now) for row in list_keys(database, tenant)]
    if as_json:
        print_json({"keys": rows})
    elif rows:
        from gateway.commands.table import print_table

        columns = ("id", "name", "tenant", "project", "state", "budgets", "limits", "models", "tiers", "last_used_at")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        click.echo("There are no keys yet. Make one with `penstock keys create --name NAME`.")


@keys.command()
@click.argument("name_or_id")
@click.option("--tenant", help="Whose key, when several tenants have one of this name.")
@click.option("--overlap", type=Duration(), default=0.0, help="How long the old secret still works. [default: 0s]")
@config_option
@data_dir_option
@json_option
def rotate(
    name_or_id: str, tenant: str | None, overlap: float, config: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Give a key a new secret; the old one ends after the overlap. Budgets, limits and usage go on."""
    from gateway.keys.change import rotate_key

    now = time.time()
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        made = rotate_key(database, name_or_id, overlap, actor(), tenant=tenant, now=now, declared=catalog.keys)
    _show(made, as_json, {"old_secret_ends_at": moment_text(now + overlap)})


@keys.command()
@click.argument("name_or_id")
@click.option("--tenant", help="Whose key, when several tenants have one of this name.")
@config_option
@data_dir_option
@json_option
def revoke(name_or_id: str, tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End a key and all of its secrets; a running gateway refuses it within seconds."""
    from gateway.keys.change import revoke_key

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        ended = revoke_key(database, name_or_id, actor(), tenant=tenant, declared=catalog.keys)
    print_json({"revoked": [ended.id]}) if as_json else click.echo(f"Revoked {ended.name!r} ({ended.id}).")


def _routing(given: dict[str, Any]) -> Routing:
    from gateway.config_policies import Routing
    from gateway.routing.policies.change import checked

    names = ("min_quality", "max_cost_usd", "max_premium_share", "local_only", "regions")
    return checked(Routing, {name: given[name] for name in names if given[name] not in (None, False, ())})


def _budgets(given: tuple[str, ...], default: Period) -> dict[Period, int]:
    """Pico-USD by period, from `5` or `5/day`."""
    from gateway.money import parse_usd

    budgets: dict[Period, int] = {}
    for text in given:
        amount, slash, word = text.partition("/")
        period = next((known for known in get_args(Period) if known == (word if slash else default)), None)
        if period is None:
            raise ConfigError(f"--budget-usd {text!r}: the period must be one of {', '.join(get_args(Period))}.")
        if period in budgets:
            raise ConfigError(
                f"--budget-usd {text!r}: there is a budget per {period} already, one for each is possible."
            )
        try:
            budgets[period] = parse_usd(amount, "--budget-usd")
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
    return budgets


def _show(made: NewKey, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        print_json({"id": made.id, "name": made.name, "tenant": made.tenant, "key": made.secret, **more})
        return
    click.echo(f"{made.secret}\n")
    click.echo(
        f"This is the secret of {made.name!r} ({made.id}). Keep it now: it is stored as a hash and not shown again."
    )
    if more:
        click.echo(f"The old secret works until {more['old_secret_ends_at']}.")


def _describe(row: KeyRow, rung: Rung | None, now: float) -> dict[str, Any]:
    from gateway.keys.rules.describe import describe_allowance, describe_terms

    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "project": row.project,
        "state": row.state(now),
        "models": sorted(row.models) if row.models is not None else None,
        "tiers": sorted(row.tiers) if row.tiers is not None else None,
        "routing": describe_terms(row.terms),
        **(describe_allowance(rung.allowance) if rung is not None else {"budgets": [], "limits": {}}),
        "created_at": moment_text(row.created_at),
        "expires_at": moment_text(row.expires_at),
        "revoked_at": moment_text(row.revoked_at),
        "last_used_at": moment_text(row.last_used_at),
    }


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={amount}" for name, amount in value.items()) or "-"
    if isinstance(value, list):
        return (
            ", ".join(f"{item['limit_usd']}/{item['period']}" if isinstance(item, dict) else item for item in value)
            or "-"
        )
    return str(value or "-")
