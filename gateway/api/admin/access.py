"""Who may use the admin API: the admin key, or a member whose role may do the route's action and, maybe, one tenant only."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, cast

from fastapi import Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from gateway.errors import InvalidKey, InvalidValue, MissingKey
from gateway.keys.members.change import member_of
from gateway.keys.roles import ADMIN_KEY, Action, Actor, check_action, check_tenant
from gateway.services import Services


def services_of(request: Request) -> Services:
    """The process's services."""
    services: Services = request.app.state.services
    return services


async def require_member(request: Request) -> None:
    """Let only the admin key and members pass. Raises MissingKey or InvalidKey."""
    if "\0" in request.url.path or any("\0" in value for value in request.query_params.values()):
        raise InvalidValue("An address must not have a NUL character.")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        raise MissingKey("The admin API needs 'Authorization: Bearer $PENSTOCK_ADMIN_KEY' or the token of a member.")
    services = services_of(request)
    expected = services.settings.admin_key
    if expected is not None and secrets.compare_digest(given.encode(), expected.encode()):
        request.state.actor = ADMIN_KEY
        return
    actor = await run_in_threadpool(member_of, services.database, given, time.time())
    if actor is None:
        hint = "" if expected is not None else " PENSTOCK_ADMIN_KEY is not set, so there is no admin key."
        raise InvalidKey(f"This is neither the admin key nor the token of a member.{hint}")
    request.state.actor = actor


def may(action: Action) -> Any:
    """A dependency that gives the Actor of the request when its role may do this. Every admin route names one action."""

    async def check(request: Request) -> Actor:
        actor: Actor = request.state.actor
        check_action(actor, action)
        return actor

    cast(Any, check).action = action
    return Depends(check)


def tenant_for(actor: Actor, asked: str | None) -> str | None:
    """The tenant that a query is limited to; None for all of them. Raises Forbidden for somebody else's."""
    if asked is not None:
        check_tenant(actor, asked)
    return asked if asked is not None else actor.tenant


TenantName = Annotated[str | None, Query(alias="tenant", description="Only this tenant.")]
