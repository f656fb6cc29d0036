"""The SQL of rules and raises: what is in force, one more, the end of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, insert, select, update

from gateway.callers import LimitKind
from gateway.db.identity_tables import budget_raises, limit_rules
from gateway.db.tables import moment

_LOCK = 0x70656E75

RuleKind = Literal["budget"] | LimitKind


@dataclass(frozen=True, slots=True)
class Rule:
    """A budget (pico-USD per period) or a limit of one owner that wins over the configuration's."""

    scope: str
    tenant: str
    kind: RuleKind
    per: str
    amount: int
    hard: bool
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class Raise:
    """More money for one budget, from one moment until another, with a reason. Times are seconds since the epoch."""

    id: int
    scope: str
    tenant: str
    period: str
    extra: int
    starts_at: float
    ends_at: float
    reason: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything in SQL that is in force or will be."""

    rules: tuple[Rule, ...] = ()
    raises: tuple[Raise, ...] = ()


def read_changes(connection: Connection, now: float, scopes: Sequence[str] | None = None) -> Changes:
    """Rules in force, and raises that have not ended; those of some scopes or all."""
    rules = select(limit_rules).where(limit_rules.c.ended_at.is_(None)).order_by(limit_rules.c.id)
    raises = select(budget_raises).where(budget_raises.c.ends_at > moment(now), budget_raises.c.ended_at.is_(None))
    raises = raises.order_by(budget_raises.c.id)
    if scopes is not None:
        rules = rules.where(limit_rules.c.scope.in_(scopes))
        raises = raises.where(budget_raises.c.scope.in_(scopes))
    return Changes(
        tuple(_rule(row) for row in connection.execute(rules).mappings()),
        tuple(_raise(row) for row in connection.execute(raises).mappings()),
    )


def lock_rules(connection: Connection) -> None:
    """Let writers of rules take turns until this transaction ends; in SQLite they do anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def find_rule(connection: Connection, scope: str, kind: str, per: str) -> Rule | None:
    """The rule that is in force."""
    matching = (limit_rules.c.scope == scope) & (limit_rules.c.kind == kind) & (limit_rules.c.per == per)
    query = select(limit_rules).where(matching & limit_rules.c.ended_at.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    return _rule(row) if row is not None else None


def insert_rule(connection: Connection, rule: Rule) -> None:
    """Put a rule in force. Raises IntegrityError when another one of its kind is."""
    connection.execute(
        insert(limit_rules).values(
            scope=rule.scope,
            tenant=rule.tenant,
            kind=rule.kind,
            per=rule.per,
            amount=rule.amount,
            hard=rule.hard,
            created_at=moment(rule.created_at),
            created_by=rule.created_by,
        )
    )


def end_rule(connection: Connection, scope: str, kind: str, per: str, now: float) -> None:
    """End the rule that is in force, if there is one."""
    matching = (limit_rules.c.scope == scope) & (limit_rules.c.kind == kind) & (limit_rules.c.per == per)
    connection.execute(
        update(limit_rules).where(matching & limit_rules.c.ended_at.is_(None)).values(ended_at=moment(now))
    )


def insert_raise(connection: Connection, values: dict[str, Any], starts_at: float, ends_at: float, now: float) -> int:
    """Store a raise; returns its id."""
    times = {"starts_at": moment(starts_at), "ends_at": moment(ends_at), "created_at": moment(now)}
    key = connection.execute(insert(budget_raises).values(**values, **times)).inserted_primary_key
    assert key is not None
    return int(key[0])


def find_raise(connection: Connection, number: int, now: float) -> Raise | None:
    """A raise that has not ended, kept from changing until the transaction ends."""
    query = select(budget_raises).where(budget_raises.c.id == number).with_for_update()
    query = query.where(budget_raises.c.ended_at.is_(None), budget_raises.c.ends_at > moment(now))
    row = connection.execute(query).mappings().one_or_none()
    return _raise(row) if row is not None else None


def end_raise_row(connection: Connection, number: int, now: float) -> None:
    """Take a raise back."""
    connection.execute(update(budget_raises).where(budget_raises.c.id == number).values(ended_at=moment(now)))


def _rule(row: RowMapping) -> Rule:
    values = {name: row[name] for name in ("scope", "tenant", "kind", "per", "amount", "hard", "created_by")}
    return Rule(**values, created_at=row["created_at"].timestamp())


def _raise(row: RowMapping) -> Raise:
    return Raise(
        id=row["id"],
        scope=row["scope"],
        tenant=row["tenant"],
        period=row["period"],
        extra=row["extra_pico"],
        starts_at=row["starts_at"].timestamp(),
        ends_at=row["ends_at"].timestamp(),
        reason=row["reason"],
        created_at=row["created_at"].timestamp(),
        created_by=row["created_by"],
    )
