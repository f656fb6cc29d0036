"""What is said about answers: labels, feedback that waits for its request, answers of shadow requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "quality_labels",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("tenant", "policy", "model", "tier", "source", "author")
        ),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("comment", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.UniqueConstraint("request_id", "source", "model", "author", name="quality_labels_once"),
    )
    op.create_index("quality_labels_by_start", "quality_labels", ["started_at", "request_id"])
    op.create_index("quality_labels_by_policy", "quality_labels", ["policy", "started_at", "request_id"])
    op.create_table(
        "waiting_feedback",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("author", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("comment", sa.Text),
        sa.Column("given_at", TIME, nullable=False),
    )
    op.create_index("waiting_feedback_by_time", "waiting_feedback", ["given_at"])
    op.create_table(
        "shadow_answers",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("started_at", TIME, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("tenant", "policy", "answered_model", "answered_tier")),
        sa.Column("shadow_request_id", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model", "tier", "compare")),
        sa.Column("judge", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("agreement", sa.Float),
        sa.Column("cost_pico", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("prompt_text", "answer_text", "shadow_text")),
        sa.Column("texts_expire_at", TIME),
    )
    op.create_index("shadow_answers_by_start", "shadow_answers", ["started_at", "request_id"])
    for name, columns, condition in (
        ("shadow_answers_to_judge", ["created_at", "request_id"], "status = 'waiting'"),
        ("shadow_answers_expiring", ["texts_expire_at"], "texts_expire_at IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "shadow_answers", columns, sqlite_where=where, postgresql_where=where)
