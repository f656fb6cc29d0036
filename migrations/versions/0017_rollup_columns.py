"""Reports sum only counters that were ever used; which those are is written down with the roll-ups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

COUNTERS = (
    "requests", "requests_by_model", "requests_by_provider", "requests_by_both", "attempts", "estimated",
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input",
    "output", "reasoning", "audio_output", "gpu_seconds",
    "cost_mills", "cost_rest_pico", "charge_mills", "charge_rest_pico",
)  # fmt: skip


def upgrade() -> None:
    columns = op.create_table("rollup_columns", sa.Column("name", sa.Text, primary_key=True))
    used = ", ".join(f"MAX(CASE WHEN {name} <> 0 THEN 1 ELSE 0 END)" for name in COUNTERS)
    found = op.get_bind().execute(sa.text(f"SELECT {used} FROM usage_hours")).one()  # noqa: S608  (names of this file)
    op.bulk_insert(columns, [{"name": name} for name, is_used in zip(COUNTERS, found, strict=True) if is_used])
