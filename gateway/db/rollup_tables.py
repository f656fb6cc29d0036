"""Tables of roll-ups and of what retention has removed, on the same metadata as the rest.

Roll-ups are sums of usage by hour and by day (UTC), written in the transaction that writes the usage, kept for ever. A row of
theirs belongs to a group: one combination of everything that usage is asked for by. `model` and `provider` are those of the
attempts, so a request with a fallback is in several groups; the four counters of requests say in how many ways it counts.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from gateway.db.tables import UtcDateTime, metadata
from gateway.types import usage_fields

OF_REQUEST = ("tenant", "project", "key_id", "key_name", "tier", "outcome")
OF_ATTEMPT = ("model", "provider")
DIMENSIONS = (*OF_REQUEST, *OF_ATTEMPT)
REQUESTS = ("requests", "requests_by_model", "requests_by_provider", "requests_by_both")
"""A request counts once in its first attempt's group; once per model; once per provider; once per both. So each sum over
groups counts no request twice: `requests` over everything, `requests_by_model` when models are told apart, and so on."""
PICO_PER_MILL = 10**9
MONEY = ("cost_mills", "cost_rest_pico", "charge_mills", "charge_rest_pico")
"""A sum of amounts may pass the 9.2 million USD that 64 bits of pico-USD hold, and SQLite has no wider integer. So each amount
is added in two parts: its whole thousandths of a USD (mills), and the pico-USD that are left."""
ENERGY_SUMS = ("energy_calls", "energy_estimates", "energy_microjoules", "co2e_nanograms")
"""Calls whose energy is known, those of them that estimate it, and the sums; without a call the sums mean nothing."""
COUNTERS = (*REQUESTS, "attempts", "estimated", *usage_fields(), *ENERGY_SUMS, *MONEY)


def _counters() -> list[Column[Any]]:
    return [Column(name, BigInteger, nullable=False) for name in COUNTERS]


usage_groups = Table(
    "usage_groups",
    metadata,
    Column("id", Integer, primary_key=True),
    # The dimensions as one text, because nothing (NULL) is a value, too, and unique indexes do not see it.
    Column("name", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("project", Text),
    Column("key_id", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("tier", Text),
    Column("outcome", Text, nullable=False),
    Column("model", Text),
    Column("provider", Text),
)

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("start", UtcDateTime, primary_key=True),
    Column("group_id", Integer, primary_key=True, autoincrement=False),
    *_counters(),
    Index("usage_hours_by_group", "group_id", "start"),
    # Rows of the present hour are changed with every batch; room in their page keeps them there.
    postgresql_with={"fillfactor": 60},
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("start", UtcDateTime, primary_key=True),
    Column("group_id", Integer, primary_key=True, autoincrement=False),
    *_counters(),
    postgresql_with={"fillfactor": 60},
)

rollup_columns = Table(
    "rollup_columns",
    metadata,
    # Counters that some roll-up has above 0. Few meters are ever used, and reports need not sum the others.
    Column("name", Text, primary_key=True),
)

removed_months = Table(
    "removed_months",
    metadata,
    # What retention has taken out of a month's usage rows. A month that is not here has everything.
    Column("month", Text, primary_key=True),
    Column("explanations_at", UtcDateTime),
    Column("requests_at", UtcDateTime),
    # When the first of its removed requests began and the last ended: transactions in between may have no usage row.
    Column("first_started_at", UtcDateTime),
    Column("last_finished_at", UtcDateTime),
)

removed_sums = Table(
    "removed_sums",
    metadata,
    # What the removed requests of a month add up to, by everything that still asks for them: budgets, and `ledger verify`.
    # `kind` says what `owner` is: tenant, project, key, user, tag, model, provider, or the period of the invoice.
    Column("month", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in MONEY),
)
