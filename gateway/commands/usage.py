"""`penstock usage`: tokens by bucket, cost and charge of a period, grouped; what it prints is what the ledger was told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.options import config_option, data_dir_option, json_option, print_json, settings_with
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.reports.usage.report import UsageReport

FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m"]


@click.command(short_help="Tokens and money of a period.")
@click.option("--since", type=click.DateTime(FORMS), help="First moment, UTC. [default: the start of this month]")
@click.option("--until", type=click.DateTime(FORMS), help="End, not included, UTC. [default: now]")
@click.option("--group-by", default="tenant,model", show_default=True, metavar="NAMES", help="Separated by commas.")
@config_option
@data_dir_option
@json_option
def usage(
    since: datetime | None,
    until: datetime | None,
    group_by: str,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Sum tokens by bucket, what providers ask (cost) and what tenants pay (charge)."""
    from gateway.commands.database import open_database
    from gateway.reports.usage.report import usage_report

    settings = settings_with(config=config, data_dir=data_dir)
    now = datetime.now(UTC)
    start = _utc(since) or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    groups = tuple(name.strip() for name in group_by.split(",") if name.strip())
    with open_database(settings) as database:
        try:
            report = usage_report(database, start, _utc(until), groups)
        except ValueError as error:
            raise ConfigError(f"--group-by is {group_by!r}: {error}") from None
    print_json(report.as_dict()) if as_json else _print(report)


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _print(report: UsageReport) -> None:
    """Groups, tokens and money; the buckets one by one are in the document."""
    from gateway.commands.table import print_table

    numbers = ("requests", "input_tokens", "output_tokens", "reasoning_tokens", "cost_usd", "charge_usd")
    documents = [row.as_dict(report.group_by) for row in report.rows]
    rows = [
        [*(str(row[name] or "-") for name in report.group_by), *(str(row[name]) for name in numbers)]
        for row in documents
    ]
    total = report.total.as_dict()
    rows.append(
        [
            *("total" if place == 0 else "" for place in range(len(report.group_by))),
            *(str(total[name]) for name in numbers),
        ]
    )
    print_table((*report.group_by, *numbers), rows, right=numbers)
