"""`penstock budgets`: every money limit with what is used of it; set, remove and raise them while the gateway runs."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click

from gateway.callers import Period
from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.commands.owners import MOMENTS, Duration, actor, open_owners, owner_given, utc
from gateway.errors import ConfigError

PERIOD = click.Choice(get_args(Period))


@click.group(short_help="See, set, remove and raise money limits.")
def budgets() -> None:
    """Money limits of tenants, projects, keys, users, models and tags. Running gateways follow within seconds.

    SCOPE is tenant:NAME, project:TENANT/NAME, key:TENANT/NAME (or key:ID), user:TENANT/NAME, model:TENANT/NAME or
    tag:TENANT/NAME; user:TENANT/ is every user without rules of its own.
    """


@budgets.command("list")
@click.option("--tenant", help="Only this tenant.")
@config_option
@data_dir_option
@json_option
def list_(tenant: str | None, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Every budget of every owner: limit, raises, what is used and held, when it resets."""
    from gateway.billing.budget_report.queries import spending
    from gateway.keys.rules.describe import describe_raise, describe_state
    from gateway.keys.rules.effective import counted_budgets, effective, raises_in_force

    now = time.time()
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        rungs = effective(catalog, database, now, tenant)
        rows = describe_state(rungs, spending(database, counted_budgets(rungs), now))
        raises = [describe_raise(each) for each in raises_in_force(database, now, tenant)]
    print_json({"budgets": rows, "raises": raises}) if as_json else _print(rows, raises)


@budgets.command("set")
@click.argument("scope")
@click.option("--limit-usd", required=True, metavar="USD", help="Most that may be spent in one period.")
@click.option("--period", type=PERIOD, default="month", show_default=True)
@click.option("--soft", is_flag=True, help="Count it and refuse nothing.")
@config_option
@data_dir_option
@json_option
def set_(scope: str, limit_usd: str, as_json: bool, config: Path | None, data_dir: Path | None, **given: Any) -> None:
    """Give SCOPE a budget, in place of the one it has for this period, from the configuration too."""
    from gateway.keys.rules.change import set_budget, usd_given
    from gateway.keys.rules.describe import describe_rule
    from gateway.keys.rules.effective import allowance_of
    from gateway.money import format_usd

    limit, now = usd_given(limit_usd, "--limit-usd"), time.time()
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        owner = owner_given(scope, catalog, database)
        budgets_now = allowance_of(catalog, database, owner, now).budgets
        before = next((each for each in budgets_now if each.period == given["period"]), None)
        rule = set_budget(database, owner, limit, given["period"], hard=not given["soft"], actor=actor(), now=now)
    old = {"limit_usd": format_usd(before.limit - before.raised), "hard": before.hard} if before else None
    document = {"scope": owner.title, **describe_rule(rule), "replaced": old}
    instead = f", in place of {old['limit_usd']} USD, {_word(old['hard'])}" if old else ""
    said = f"{owner.title}: {document['limit_usd']} USD per {rule.per}, {_word(rule.hard)}{instead}."
    print_json(document) if as_json else click.echo(said)


@budgets.command()
@click.argument("scope")
@click.option("--period", type=PERIOD, default="month", show_default=True)
@config_option
@data_dir_option
@json_option
def remove(scope: str, period: Period, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End a budget that was set here; the one of the configuration counts again."""
    from gateway.keys.rules.change import remove_budget

    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        owner = owner_given(scope, catalog, database)
        remove_budget(database, owner, period, actor=actor(), now=time.time())
    document = {"scope": owner.title, "period": period}
    print_json({"removed": document}) if as_json else click.echo(f"{owner.title}: removed the budget per {period}.")


@budgets.command("raise")
@click.argument("scope")
@click.option("--usd", required=True, metavar="USD", help="How much more.")
@click.option("--period", type=PERIOD, default="month", show_default=True, help="Of which budget.")
@click.option("--until", type=click.DateTime(MOMENTS), help="End, UTC.")
@click.option("--for", "duration", type=Duration(), help="Or how long, for example 12h or 3d.")
@click.option("--from", "since", type=click.DateTime(MOMENTS), help="First moment, UTC. [default: now]")
@click.option("--reason", required=True, help="Stays with it, for whoever asks later.")
@config_option
@data_dir_option
@json_option
def raise_(scope: str, as_json: bool, config: Path | None, data_dir: Path | None, **given: Any) -> None:
    """Add money to a budget of SCOPE for a while."""
    from gateway.keys.rules.change import raise_budget, usd_given
    from gateway.keys.rules.describe import describe_raise

    now = time.time()
    starts_at = utc(given["since"]) or now
    ends_at = _end(given["until"], given["duration"], starts_at)
    extra = usd_given(given["usd"], "--usd")
    with open_owners(settings_with(config=config, data_dir=data_dir)) as (catalog, database):
        owner = owner_given(scope, catalog, database)
        made = raise_budget(
            database,
            catalog,
            owner,
            extra,
            given["period"],
            starts_at=starts_at,
            ends_at=ends_at,
            reason=given["reason"],
            actor=actor(),
            now=now,
        )
    document = describe_raise(made)
    more = f"{document['usd']} USD more per {made.period} until {document['until']} (raise {made.id})."
    print_json(document) if as_json else click.echo(f"{owner.title}: {more}")


@budgets.command("end-raise")
@click.argument("number", type=click.IntRange(1, 2**62))
@config_option
@data_dir_option
@json_option
def end_raise(number: int, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Take a raise back before its end; `penstock budgets list` shows their numbers."""
    from gateway.commands.database import open_database
    from gateway.keys.rules.change import end_raise as end
    from gateway.keys.rules.describe import describe_raise

    with open_database(settings_with(config=config, data_dir=data_dir)) as database:
        ended = end(database, number, actor=actor(), now=time.time())
    print_json({"ended": describe_raise(ended)}) if as_json else click.echo(f"Ended raise {number} of {ended.scope}.")


def _word(hard: object) -> str:
    return "hard" if hard else "soft"


def _end(until: datetime | None, duration: float | None, starts_at: float) -> float:
    if (until is None) == (duration is None):
        raise ConfigError("a raise ends: give --until or --for, and not both.")
    return utc(until) or starts_at + (duration or 0.0)


def _print(rows: list[dict[str, Any]], raises: list[dict[str, Any]]) -> None:
    from gateway.commands.table import print_table

    if not rows:
        click.echo("There are no budgets. Give one with `penstock budgets set`, or in the configuration.")
    else:
        columns = ("scope", "period", "limit_usd", "raised_usd", "used_usd", "held_usd", "resets_at", "hard")
        lines = [
            [
                "-" if row[column] is None else str(row[column]).lower() if column == "hard" else row[column]
                for column in columns
            ]
            for row in rows
        ]
        print_table(columns, lines, right={"limit_usd", "raised_usd", "used_usd", "held_usd"})
    if raises:
        click.echo("\nRaises that are in force or will be:")
        columns = ("id", "scope", "usd", "period", "from", "until", "reason", "by")
        print_table(columns, [[str(row[column]) for column in columns] for row in raises], right={"id", "usd"})
