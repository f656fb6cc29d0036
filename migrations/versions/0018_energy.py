"""Energy of calls to own engines: in the rows of requests and attempts where it is known, and summed in the roll-ups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("usage_events", "attempts"):
        op.add_column(table, sa.Column("energy_microjoules", sa.BigInteger))
        op.add_column(table, sa.Column("co2e_nanograms", sa.BigInteger))
        op.add_column(table, sa.Column("energy_estimated", sa.Boolean))
    # Of what was metered before nothing is known, and that is what no calls say.
    for table in ("usage_hours", "usage_days"):
        for name in ("energy_calls", "energy_estimates", "energy_microjoules", "co2e_nanograms"):
            op.add_column(table, sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
