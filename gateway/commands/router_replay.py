"""`penstock router replay`: what past requests would have cost, and how good they would have been, under other conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.options import Between, config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError, InvalidValue

if TYPE_CHECKING:
    from gateway.config_policies import Policy

FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m"]
DAYS = 7


@click.command(short_help="What past requests would become under another policy, artifact or price list.")
@click.option("--since", type=click.DateTime(FORMS), help="First moment, UTC. [default: 7 days before the end]")
@click.option("--until", type=click.DateTime(FORMS), help="End, not included, UTC. [default: now]")
@click.option("--tenant", metavar="NAME", help="Only this tenant.")
@click.option(
    "--policy", metavar="NAME_OR_FILE", help="For all requests: a policy's name, or a YAML file with its keys."
)
@click.option("--artifact", metavar="VERSION_OR_FILE", help="Score the requests again with this artifact.")
@click.option("--min-quality", type=Between(0, 1), metavar="X", help="In place of every policy's `min_quality`.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="At most about N requests, always the same ones."
)
@config_option
@data_dir_option
@json_option
def replay(
    since: datetime | None,
    until: datetime | None,
    tenant: str | None,
    policy: str | None,
    artifact: str | None,
    min_quality: float | None,
    sample: int | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Decide past requests again and compare: cost, predicted quality, time, and which model would answer instead of which.

    With --config other models, prices and policies count than those of PENSTOCK_CONFIG, whose database is read all the same.
    """
    from gateway.chat.replaying import Wish, run_replay
    from gateway.commands.configuration import known_catalog
    from gateway.commands.database import open_database

    given = settings_with(config=config, data_dir=data_dir)
    end = _utc(until) or datetime.now(UTC)
    start = _utc(since) or end - timedelta(days=DAYS)
    wish = Wish(start, end, tenant, _policy(policy), artifact_named(artifact), min_quality, sample)
    # Of the gateway's own configuration, where there is one: another one is there for its models and prices.
    own = settings_with(data_dir=data_dir)
    with open_database(own if own.config is not None else given) as database:
        try:
            result = run_replay(database, known_catalog(given), wish)
        except InvalidValue as error:
            raise ConfigError(f"--{(error.param or 'since').replace('_', '-')}: {error.message}") from None
    print_json(result) if as_json else _print(result)


def _policy(wanted: str | None) -> Policy | str | None:
    """A policy's name as it is, or the policy of a file. Raises ConfigError naming what is wrong in it."""
    if wanted is None or not Path(wanted).is_file():
        return wanted
    import yaml

    from gateway.config import check_config
    from gateway.config_yaml import load_yaml

    try:
        document = load_yaml(Path(wanted).read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the policy {wanted!r} cannot be read: {error}") from error
    return check_config({"policies": {"default": document}}, wanted).policies["default"]


def artifact_named(wanted: str | None) -> str | Path | None:
    """A file where there is one of this name, else a version."""
    return Path(wanted) if wanted is not None and Path(wanted).is_file() else wanted


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _print(result: dict[str, Any]) -> None:
    from gateway.chat.replaying import WITHOUT_RECORD
    from gateway.commands.table import print_table

    requests, cost, quality = result["requests"], result["cost_usd"], result["quality"]
    of = f", a sample of {requests['sample_of']}" if requests["sample_of"] else ""
    click.echo(f"{requests['replayed']} requests{of}, {result['since'][:19]} to {result['until'][:19]} UTC")
    if requests["without_record"]:
        click.echo(f"  not replayed: {requests['without_record']} (without a routing record: {WITHOUT_RECORD})")
    for reason, count in requests["left_out"].items():
        click.echo(f"  not replayed: {count} ({reason.replace('_', ' ')})")
    for name, count in requests["model_not_configured"].items():
        click.echo(f"  not replayed: {count} (asked for {name!r}, which is not configured)")
    click.echo(
        f"cost      {_usd(cost['as_routed'])} USD as routed, {_usd(cost['replayed'])} USD replayed, "
        f"both expected at the prices of the replay (booked: {_usd(cost['booked'])} USD)"
    )
    if quality["requests"]:
        sides = (quality["as_routed"], quality["replayed"], quality["kept"])
        before, after, kept = (f"{each['p']:.3f} ({each['low']:.3f} to {each['high']:.3f})" for each in sides)
        click.echo(f"quality   {before} as routed, {after} replayed; {kept} of the best to be had")
    means = {name: each.get("mean") for name, each in result["seconds"].items()}
    seconds = {name: "unknown" if mean is None else f"{mean:.3g}" for name, mean in means.items()}
    click.echo(
        f"seconds   {seconds['as_routed']} as routed, {seconds['replayed']} replayed (measured: {seconds['measured']})"
    )
    click.echo(f"moved     {result['moved']['requests']} requests, {result['moved']['share']:.1%}")
    columns = ("as_routed", "answered", "replayed")
    rows = [[each["model"], *(f"{each[name]:.1%}" for name in columns)] for each in result["models"]]
    print_table(("model", *columns), rows, right=columns)
    if result["moves"]:
        rows = [[each["from"], each["to"], str(each["requests"]), _usd(each["change_usd"])] for each in result["moves"]]
        print_table(("from", "to", "requests", "change_usd"), rows, right=("requests", "change_usd"))
    for each in result["examples"]:
        click.echo(f"{each['request_id']}  {each['from']} -> {each['to']}  {each['why']}")
    click.echo(f"Not replayed: {result['not_replayed']}.")


def _usd(amount: float | None) -> str:
    """Expected money to four digits that count; whole cents where that is less."""
    if amount is None:
        return "unknown"
    digits = max(2, 3 - floor(log10(abs(amount)))) if amount else 2
    return f"{amount:,.{digits}f}"
