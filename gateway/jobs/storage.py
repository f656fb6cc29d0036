"""Keeps storage in order: partitions are there before their month begins, and what is past its time goes."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.billing.retention.holds import remove_holds
from gateway.billing.retention.remove import apply
from gateway.config import read_config
from gateway.db import partitions
from gateway.db.tables import moment
from gateway.db.transaction import transaction
from gateway.jobs.runner import Context

MONTHS_AHEAD = 2


def open_partitions(context: Context) -> str | None:
    """Make the partitions of this month and the next ones. Deliverers would, too, but in the rush of a month's first second."""
    months = [partitions.month_start(moment(context.now()))]
    for _ in range(MONTHS_AHEAD):
        months.append(partitions.next_month(months[-1]))
    with transaction(context.database) as connection:
        made = partitions.open_months(connection, months)
    return f"made {', '.join(made)}" if made else None


def apply_retention(context: Context) -> str | None:
    """Remove what `retention:` of the configuration lets go; what has to stay is tried again the next day."""
    if context.settings.config is None:
        return None
    rules = read_config(context.settings.config).retention
    done = apply(context.database, rules, datetime.fromtimestamp(context.now(), UTC))
    gone = [f"{each.month}: {each.requests} requests" for each in done.requests if not each.needed]
    gone += [f"{month}: explanations" for month in done.explanations]
    stays = [f"{each.month} stays: {'; '.join(each.needed)}" for each in done.requests if each.needed]
    return "; ".join([*(f"removed {what}" for what in gone), *stays]) or None


def remove_old_holds(context: Context) -> str | None:
    """Remove holds that were settled long ago. Raises Unavailable."""
    removed = remove_holds(context.database, moment(context.now()), context.stop.is_set)
    return f"removed {removed} holds" if removed else None
