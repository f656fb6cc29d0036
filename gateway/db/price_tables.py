"""The price book's table: one row per price with its dimensions and the time it is valid; rows are ended, never edited.

No two rows of the same dimensions are valid at the same moment. `billing/prices/queries.py` checks that inside each writing
transaction; the indexes here make a second open row impossible for whoever else writes.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Table, Text, text

from gateway.db.tables import BigId, UtcDateTime, metadata

DIMENSIONS = ("book", "owner", "model", "meter", "least_tokens", "service_tier", "region")
"""What a price is the price of. `least_tokens`: the whole request costs this from so many input tokens on."""

_OPEN = text("valid_to IS NULL")
_IN_FORCE = text("valid_to IS NULL OR valid_to > valid_from")

prices = Table(
    "prices",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("book", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("least_tokens", BigInteger, nullable=False),
    Column("service_tier", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("rate", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("valid_from", UtcDateTime, nullable=False),
    # A row that ends where it begins was withdrawn before it came into force.
    Column("valid_to", UtcDateTime),
    Column("source", Text, nullable=False),
    Column("source_hash", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("rate >= 0", name="prices_rate"),
    CheckConstraint("unit > 0", name="prices_unit"),
    CheckConstraint("currency = 'USD'", name="prices_currency"),
    CheckConstraint("least_tokens >= 0", name="prices_least_tokens"),
    CheckConstraint("valid_to IS NULL OR valid_to >= valid_from", name="prices_period"),
    Index("prices_one_open", *DIMENSIONS, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index(
        "prices_one_start", *DIMENSIONS, "valid_from", unique=True, sqlite_where=_IN_FORCE, postgresql_where=_IN_FORCE
    ),
    Index("prices_by_model", "model"),
)
