"""Changing budgets and limits at run time: the row, the end of the one before it and the audit row are one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.callers import Period
from gateway.catalog import Catalog
from gateway.catalog_owners import LIMITS
from gateway.config_owners import LARGEST
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import InvalidValue, NotFound
from gateway.keys.rules.describe import describe_raise, describe_rule
from gateway.keys.rules.effective import allowance_of
from gateway.keys.rules.queries import (
    Raise,
    Rule,
    RuleKind,
    end_raise_row,
    end_rule,
    find_raise,
    find_rule,
    insert_raise,
    insert_rule,
    lock_rules,
)
from gateway.keys.scopes import Owner
from gateway.money import parse_usd

LONGEST_REASON = 500
LONGEST_RAISE = 366 * 86_400.0


def set_budget(
    database: Database, owner: Owner, limit: int, period: Period, *, hard: bool, actor: str, now: float
) -> Rule:
    """Give an owner a budget of `limit` pico-USD per period, in place of the one it has from anywhere."""
    return _set(database, owner, "budget", period, limit, hard, actor, now)


def set_limit(database: Database, owner: Owner, name: str, amount: int, *, actor: str, now: float) -> Rule:
    """Give an owner a rate limit by its name (`requests_per_minute`). Raises InvalidValue for an unknown one or amount."""
    kind, per = _limit(name)
    if not 0 < amount < LARGEST:
        raise InvalidValue(f"{name} must be a whole number above 0 and below {LARGEST}, got {amount!r}.", param=name)
    return _set(database, owner, kind, per, amount, True, actor, now)


def remove_budget(database: Database, owner: Owner, period: Period, *, actor: str, now: float) -> None:
    """End a budget that was set at run time; the configuration's own counts again. Raises NotFound when there is none."""
    _remove(database, owner, "budget", period, f"budget per {period}", actor, now)


def remove_limit(database: Database, owner: Owner, name: str, *, actor: str, now: float) -> None:
    """The same for a rate limit."""
    kind, per = _limit(name)
    _remove(database, owner, kind, per, f"limit {name}", actor, now)


def raise_budget(
    database: Database,
    catalog: Catalog,
    owner: Owner,
    extra: int,
    period: Period,
    *,
    starts_at: float,
    ends_at: float,
    reason: str,
    actor: str,
    now: float,
) -> Raise:
    """Add `extra` pico-USD to a budget for a while. Raises InvalidValue without a budget, a reason, an end or an amount."""
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise InvalidValue(
            f"reason must be one line of 1 to {LONGEST_REASON} characters, got {reason!r}.", param="reason"
        )
    if extra <= 0:
        raise InvalidValue("a raise must be more than nothing.", param="usd")
    if not starts_at < ends_at or ends_at <= now:
        raise InvalidValue("a raise must end (until) after it begins (from), and not in the past.", param="until")
    if ends_at - max(starts_at, now) > LONGEST_RAISE:
        raise InvalidValue("a raise lasts a year at most; set the budget itself to change it for good.", param="until")
    periods = [budget.period for budget in allowance_of(catalog, database, owner, now).budgets]
    if period not in periods:
        has = f"has budgets per {', '.join(periods)}" if periods else "has no budget"
        raise InvalidValue(f"{owner.title} {has}, and none per {period} that could be raised.", param="period")
    values = {
        "scope": owner.scope,
        "tenant": owner.tenant,
        "period": period,
        "extra_pico": extra,
        "reason": reason,
        "created_by": actor,
    }
    with transaction(database) as connection:
        number = insert_raise(connection, values, starts_at, ends_at, now)
        made = Raise(number, owner.scope, owner.tenant, period, extra, starts_at, ends_at, reason, now, actor)
        change = Change("budgets.raise", owner.title, owner.tenant, after=describe_raise(made))
        write_audit(connection, actor, now, change)
    return made


def end_raise(database: Database, number: int, *, actor: str, now: float, only_tenant: str | None = None) -> Raise:
    """Take a raise back before its end. Raises NotFound when it is over, unknown, or another tenant's."""
    with transaction(database) as connection:
        found = find_raise(connection, number, now) if 0 < number < LARGEST else None
        if found is None or only_tenant not in (None, found.tenant):
            raise NotFound(f"No raise that is in force has the number {number}. `penstock budgets list` shows them.")
        end_raise_row(connection, number, now)
        change = Change("budgets.end_raise", found.scope, found.tenant, before=describe_raise(found))
        write_audit(connection, actor, now, change)
    return found


def usd_given(value: object, name: str) -> int:
    """Pico-USD of an amount that somebody typed. Raises InvalidValue that names the field."""
    try:
        return parse_usd(value, name)
    except ValueError as error:
        raise InvalidValue(f"{error}.", param=name) from None


def write_rule(
    connection: Connection, owner: Owner, kind: RuleKind, per: str, amount: int, hard: bool, actor: str, now: float
) -> Rule:
    """Put a rule in force in a transaction that is open already, without an audit row of its own."""
    rule = Rule(owner.scope, owner.tenant, kind, per, amount, hard, now, actor)
    insert_rule(connection, rule)
    return rule


def _set(
    database: Database, owner: Owner, kind: RuleKind, per: str, amount: int, hard: bool, actor: str, now: float
) -> Rule:
    with transaction(database) as connection:
        lock_rules(connection)
        before = find_rule(connection, owner.scope, kind, per)
        end_rule(connection, owner.scope, kind, per, now)
        rule = write_rule(connection, owner, kind, per, amount, hard, actor, now)
        word = "budgets.set" if kind == "budget" else "limits.set"
        old = describe_rule(before) if before is not None else None
        write_audit(connection, actor, now, Change(word, owner.title, owner.tenant, old, describe_rule(rule)))
    return rule


def _remove(database: Database, owner: Owner, kind: RuleKind, per: str, what: str, actor: str, now: float) -> None:
    with transaction(database) as connection:
        lock_rules(connection)
        before = find_rule(connection, owner.scope, kind, per)
        if before is None:
            raise NotFound(
                f"{owner.title} has no {what} that was set at run time. One of the configuration is changed there, "
                "or set to another amount."
            )
        end_rule(connection, owner.scope, kind, per, now)
        word = "budgets.remove" if kind == "budget" else "limits.remove"
        write_audit(connection, actor, now, Change(word, owner.title, owner.tenant, before=describe_rule(before)))


def _limit(name: str) -> tuple[RuleKind, str]:
    if name not in LIMITS:
        raise InvalidValue(f"{name!r} is not a limit. Known: {', '.join(LIMITS)}.", param="limit")
    return LIMITS[name]
