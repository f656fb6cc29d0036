"""Keys keep their id when their secret changes; rules and raises in SQL; members; the audit log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEYS = sa.table(
    "api_keys",
    *(sa.column(name) for name in ("id", "hash", "name", "tenant", "budget_limit_pico", "budget_period")),
    sa.column("limits", sa.JSON),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("revoked_at", sa.DateTime(timezone=True)),
)


def required(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def number() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def upgrade() -> None:
    create_rules()
    create_members()
    rules = sa.table(
        "limit_rules",
        *(sa.column(name) for name in ("scope", "tenant", "kind", "per", "amount", "hard", "created_by")),
        sa.column("created_at", moment()),
    )
    connection = op.get_bind()
    keys = connection.execute(sa.select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id)).mappings().all()
    for key in keys:
        amounts = [("budget", key["budget_period"], key["budget_limit_pico"])] if key["budget_period"] else []
        amounts += [(kind, "minute", amount) for kind, amount in (key["limits"] or {}).items()]
        for kind, per, amount in amounts:
            owner = {"scope": f"key:{key['id']}", "tenant": key["tenant"], "created_by": "migration"}
            values = {"kind": kind, "per": per, "amount": amount, "hard": True, "created_at": key["created_at"]}
            connection.execute(rules.insert().values(**owner, **values))
    give_names_once(connection, keys)
    secrets = [{"hash": key["hash"], "key_id": key["id"], "created_at": key["created_at"]} for key in keys]
    with op.batch_alter_table("api_keys") as table:
        for name in ("hash", "budget_limit_pico", "budget_period", "limits"):
            table.drop_column(name)
        table.add_column(sa.Column("project", sa.Text))
    in_force("api_keys_one_name", "api_keys", ["tenant", "name"], "revoked_at IS NULL")
    kept = op.create_table(
        "key_secrets",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, sa.ForeignKey("api_keys.id"), nullable=False),
        required("created_at", moment()),
        sa.Column("ends_at", moment()),
    )
    op.create_index("key_secrets_by_key", "key_secrets", ["key_id"])
    if secrets:
        op.bulk_insert(kept, secrets)


def give_names_once(connection: sa.Connection, keys: Any) -> None:
    """Keys of one tenant with the same name that nobody revoked: the newest keeps it, the others get their id behind it."""
    seen: set[tuple[str, str]] = set()
    for key in reversed(keys):
        if key["revoked_at"] is not None:
            continue
        if (key["tenant"], key["name"]) in seen:
            name = f"{key['name']} ({key['id']})"
            connection.execute(KEYS.update().where(KEYS.c.id == key["id"]).values(name=name))
        seen.add((key["tenant"], key["name"]))


def create_rules() -> None:
    op.create_table(
        "limit_rules",
        number(),
        required("scope", sa.Text),
        required("tenant", sa.Text),
        required("kind", sa.Text),
        required("per", sa.Text),
        required("amount", sa.BigInteger),
        required("hard", sa.Boolean),
        required("created_at", moment()),
        required("created_by", sa.Text),
        sa.Column("ended_at", moment()),
        sa.CheckConstraint("amount >= 0", name="limit_rules_amount"),
    )
    in_force("limit_rules_in_force", "limit_rules", ["scope", "kind", "per"])
    op.create_table(
        "budget_raises",
        number(),
        required("scope", sa.Text),
        required("tenant", sa.Text),
        required("period", sa.Text),
        required("extra_pico", sa.BigInteger),
        required("starts_at", moment()),
        required("ends_at", moment()),
        required("reason", sa.Text),
        required("created_at", moment()),
        required("created_by", sa.Text),
        sa.Column("ended_at", moment()),
        sa.CheckConstraint("extra_pico > 0", name="budget_raises_extra"),
        sa.CheckConstraint("ends_at > starts_at", name="budget_raises_end"),
        sa.CheckConstraint("reason != ''", name="budget_raises_reason"),
    )
    op.create_index("budget_raises_by_end", "budget_raises", ["ends_at"])


def create_members() -> None:
    op.create_table(
        "members",
        sa.Column("id", sa.Text, primary_key=True),
        required("name", sa.Text),
        required("role", sa.Text),
        sa.Column("tenant", sa.Text),
        sa.Column("hash", sa.Text, nullable=False, unique=True),
        required("created_at", moment()),
        required("created_by", sa.Text),
        sa.Column("ended_at", moment()),
        sa.Column("last_used_at", moment()),
    )
    in_force("members_one_name", "members", ["name"])
    op.create_table(
        "audit_log",
        number(),
        required("at", moment()),
        required("actor", sa.Text),
        required("action", sa.Text),
        required("object", sa.Text),
        sa.Column("tenant", sa.Text),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
    )
    op.create_index("audit_log_by_tenant", "audit_log", ["tenant", "id"])


def in_force(name: str, table: str, columns: list[str], condition: str = "ended_at IS NULL") -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=True, sqlite_where=where, postgresql_where=where)
