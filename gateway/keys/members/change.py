"""Adding and ending members, each with its audit row, and telling who a token belongs to."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from gateway.catalog import Catalog, hash_key
from gateway.config_section import check_name
from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction
from gateway.errors import Conflict, InvalidValue, NotFound, Unavailable
from gateway.keys.members.queries import (
    Member,
    end_member_row,
    find_member,
    insert_member,
    lock_members,
    touch_member,
)
from gateway.keys.roles import ROLES, Actor, Role, check_grant
from gateway.keys.secrets import MEMBER_PREFIX, make_id, make_secret

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member just added. `token` exists only here; the database keeps its hash."""

    member: Member
    token: str = field(repr=False)


def add_member(
    database: Database, catalog: Catalog, name: str, role: Role, tenant: str | None, actor: Actor, title: str
) -> NewMember:
    """Add a member and make its token. Raises InvalidValue, Forbidden, or Conflict when the name is taken."""
    try:
        check_name(name)
    except ValueError as error:
        raise InvalidValue(f"name: {error}, got {name!r}.", param="name") from None
    if role not in ROLES:
        raise InvalidValue(f"role {role!r} does not exist. Known: {', '.join(ROLES)}.", param="role")
    check_grant(actor, role, tenant)
    if tenant is not None and tenant not in catalog.tenants:
        known = ", ".join(sorted(catalog.tenants))
        raise InvalidValue(f"tenant {tenant!r} is not declared in the configuration. Known: {known}.", param="tenant")
    now, token = time.time(), make_secret(MEMBER_PREFIX)
    member = Member(make_id("member_"), name, role, tenant, now, title, None, None)
    with transaction(database) as connection:
        insert_member(connection, member, hash_key(token))
        write_audit(connection, title, now, Change("members.add", member.id, tenant, after=describe_member(member)))
    return NewMember(member, token)


def end_member(database: Database, name_or_id: str, actor: Actor, title: str) -> Member:
    """End a member. Raises NotFound when there is none (for this actor), Conflict when several have the name, Forbidden for
    an owner that it may not end."""
    now = time.time()
    with transaction(database) as connection:
        found = lock_members(connection, name_or_id, actor.tenant)
        if not found:
            raise NotFound(f"No member has the name or id {name_or_id!r}. `penstock members list` shows them.")
        if len(found) > 1:
            known = ", ".join(f"{each.id} of {each.tenant or 'all tenants'}" for each in found)
            raise Conflict(f"{len(found)} members have the name {name_or_id!r}; use an id: {known}.")
        [member] = found
        check_grant(actor, member.role, member.tenant)
        end_member_row(connection, member.id, now)
        change = Change("members.remove", member.id, member.tenant, before=describe_member(member))
        write_audit(connection, title, now, change)
    return member


def member_of(database: Database, token: str, now: float) -> Actor | None:
    """Whose token this is; None for an unknown one and for that of an ended member. Notes the use."""
    member = find_member(database, hash_key(token))
    if member is None or member.ended_at is not None:
        return None
    try:
        touch_member(database, member, now)
    except Unavailable as error:  # a database that is busy for a moment keeps nobody out
        logger.warning("the last use of a member could not be written: %s", error.message)
    return Actor(member.name, member.role, member.tenant)


def describe_member(member: Member) -> dict[str, Any]:
    """A member for JSON and the audit log, without anything secret."""
    return {"name": member.name, "role": member.role, "tenant": member.tenant}
