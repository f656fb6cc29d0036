"""/admin/api/members: who may use the admin API; a token is only in the reply that made it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.shapes import NewMember
from gateway.keys.members.change import add_member, end_member
from gateway.keys.members.queries import Member, list_members
from gateway.keys.roles import Actor
from gateway.keys.rules.describe import moment_text

routes = APIRouter()
Reader = Annotated[Actor, may("members.read")]
Changer = Annotated[Actor, may("members.change")]


@routes.get("/members")
async def members(request: Request, actor: Reader, tenant: TenantName = None) -> list[dict[str, Any]]:
    """Members, those who were removed too; never their tokens."""
    found = await run_in_threadpool(list_members, services_of(request).database, tenant_for(actor, tenant))
    return [_describe(member) for member in found]


@routes.post("/members", status_code=201)
async def post_member(request: Request, actor: Changer, body: NewMember) -> dict[str, Any]:
    """Add a member. Its token is in this reply and nowhere else."""
    services = services_of(request)
    role: Any = body.role  # checked against the roles there are
    made = await run_in_threadpool(
        add_member, services.database, services.catalog, body.name, role, body.tenant, actor, actor.title
    )
    return {**_describe(made.member), "token": made.token}


@routes.delete("/members/{member_id}")
async def delete_member(request: Request, actor: Changer, member_id: str) -> dict[str, Any]:
    """End a member; its token stops at once."""
    ended = await run_in_threadpool(end_member, services_of(request).database, member_id, actor, actor.title)
    return {"removed": ended.id}


def _describe(member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "name": member.name,
        "role": member.role,
        "tenant": member.tenant,
        "created_at": moment_text(member.created_at),
        "created_by": member.created_by,
        "last_used_at": moment_text(member.last_used_at),
        "ended_at": moment_text(member.ended_at),
    }
