"""Why a request was routed as it was, in numbers: what replay, training and calibration read. One row per scored request.

Months are partitions in PostgreSQL, like those of the requests. A row goes with its request, and earlier where retention says
that explanations go. `features` are those of `router_models.kept`; they and `prompt` are there as far as the policy says.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, LargeBinary, Table, Text

from gateway.db.tables import UtcDateTime, metadata

SCORED = ("economy", "standard", "premium")
"""The tiers that the router model knows."""

routing_records = Table(
    "routing_records",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("started_at", UtcDateTime, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("policy", Text, nullable=False),
    # Quick, standard or deep; null for a request that named a model or tier.
    Column("mode", Text),
    Column("objective", Text, nullable=False),
    # What the request itself asked for; null when it left that to its policy.
    Column("min_quality", Float),
    Column("artifact", Text, nullable=False),
    Column("fingerprint", Text),
    Column("features", LargeBinary),
    Column("rank", Float, nullable=False),
    Column("difficulty", Float, nullable=False),
    Column("familiarity", Float, nullable=False),
    # Reasons with commas between them; empty for a familiar prompt.
    Column("unfamiliar", Text, nullable=False),
    *(Column(f"quality_{tier}", Float, nullable=False) for tier in SCORED),
    *(Column(f"low_{tier}", Float, nullable=False) for tier in SCORED),
    *(Column(f"high_{tier}", Float, nullable=False) for tier in SCORED),
    *(Column(f"tokens_{tier}", BigInteger, nullable=False) for tier in SCORED),
    # How long a model that reasons was expected to; 0 before it was remembered.
    Column("reasoning_tokens", BigInteger, nullable=False, server_default="0"),
    # The likely count that prices were compared with.
    Column("input_tokens", BigInteger, nullable=False),
    # The most the request allows per choice; 0 when it names no limit.
    Column("output_limit", BigInteger, nullable=False),
    # What else the request and its key demanded; see gateway.routed.
    Column("needs", JSON, nullable=False),
    # What was chosen first; who answered is on the usage row.
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    # Pico-USD that a unit of quality was worth; infinite for the best, null where nothing was weighed.
    Column("worth", Float),
    Column("prompt", Text),
    # What models that are judged by themselves are judged by.
    Column("shown", JSON(none_as_null=True)),
    Index("routing_records_by_policy", "policy", "started_at"),
    postgresql_partition_by="RANGE (started_at)",
)
