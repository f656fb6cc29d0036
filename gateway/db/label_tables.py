"""Tables of what is said about answers: labels, feedback that waits for its request, answers of shadow requests.

They have no foreign keys, as the requests they are about go month by month; a month's labels go with its requests.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text, UniqueConstraint, text

from gateway.db.tables import UtcDateTime, metadata

quality_labels = Table(
    "quality_labels",
    metadata,
    # Follows from request, source, model and author, so that a second label replaces the first in one statement.
    Column("id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("source", Text, nullable=False),
    # Who said it: the id of a key, the judging model, a member; empty for comparisons without anybody.
    Column("author", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("comment", Text),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("request_id", "source", "model", "author", name="quality_labels_once"),
    Index("quality_labels_by_start", "started_at", "request_id"),
    Index("quality_labels_by_policy", "policy", "started_at", "request_id"),
)

waiting_feedback = Table(
    "waiting_feedback",
    metadata,
    # Feedback whose request is not in usage_events yet; a job looks again, and gives up after a day.
    Column("request_id", Text, primary_key=True),
    Column("author", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("project", Text),
    Column("policy", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("comment", Text),
    Column("given_at", UtcDateTime, nullable=False),
    Index("waiting_feedback_by_time", "given_at"),
)

_WITH_TEXTS = text("texts_expire_at IS NOT NULL")
_TO_JUDGE = text("status = 'waiting'")

shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("answered_model", Text, nullable=False),
    Column("answered_tier", Text, nullable=False),
    Column("shadow_request_id", Text),
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("compare", Text, nullable=False),
    Column("judge", Text),
    Column("status", Text, nullable=False),
    Column("verdict", Text),
    Column("agreement", Float),
    Column("cost_pico", BigInteger, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("error_code", Text),
    Column("created_at", UtcDateTime, nullable=False),
    # Only for a person to judge, and only until then.
    Column("prompt_text", Text),
    Column("answer_text", Text),
    Column("shadow_text", Text),
    Column("texts_expire_at", UtcDateTime),
    Index("shadow_answers_by_start", "started_at", "request_id"),
    Index("shadow_answers_to_judge", "created_at", "request_id", sqlite_where=_TO_JUDGE, postgresql_where=_TO_JUDGE),
    Index("shadow_answers_expiring", "texts_expire_at", sqlite_where=_WITH_TEXTS, postgresql_where=_WITH_TEXTS),
)
