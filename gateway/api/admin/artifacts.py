"""/admin/api/router: artifacts, which policy uses which, changes with their reasons, and drift; changed while gateways run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection

from gateway.api.admin.access import may, services_of
from gateway.api.admin.shapes import NewAssignment, Reason
from gateway.artifacts import add, bundled, known_policy
from gateway.db.transaction import snapshot, transaction
from gateway.errors import BodyTooLarge, InvalidValue, NotFound
from gateway.keys.roles import Actor
from gateway.routing.artifacts.change import Room, assign, remove_artifact, roll_back
from gateway.routing.artifacts.queries import BUNDLED, artifact_bytes
from gateway.routing.artifacts.show import (
    assignment_document,
    change_page,
    drift_page,
    list_artifacts,
    list_assignments,
    show_artifact,
)
from gateway.scorers import LARGEST_BYTES, MOST_LOADED

routes = APIRouter()
Result = TypeVar("Result")
Reader = Annotated[Actor, may("artifacts.read")]
Changer = Annotated[Actor, may("artifacts.change")]
Limit = Annotated[int, Query(ge=1, le=500)]
Before = Annotated[int | None, Query(ge=1, lt=2**62)]
PolicyName = Annotated[str | None, Query(description="Only this policy.")]


async def _read(request: Request, read: Callable[[Connection], Result]) -> Result:
    def inside() -> Result:
        with snapshot(services_of(request).database) as connection:
            return read(connection)

    return await run_in_threadpool(inside)


async def _change(request: Request, change: Callable[[Connection], Result]) -> Result:
    def inside() -> Result:
        with transaction(services_of(request).database) as connection:
            return change(connection)

    return await run_in_threadpool(inside)


@routes.get("/router/artifacts")
async def artifacts(request: Request, actor: Reader) -> list[dict[str, Any]]:
    """Every artifact and the policies that use it; `bundled`, which belongs to the package, is always there."""
    return await _read(request, lambda connection: list_artifacts(connection, bundled()))


@routes.post("/router/artifacts", status_code=201)
async def post_artifact(request: Request, actor: Changer) -> dict[str, Any]:
    """Keep the artifact that is the body. It is refused unless this release can serve with it."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BYTES:
            raise BodyTooLarge(f"An artifact has at most {LARGEST_BYTES // 2**20} MiB.")
    database = services_of(request).database
    return await run_in_threadpool(add, database, bytes(content), "the uploaded file", actor.title, time.time())


@routes.get("/router/artifacts/{version}")
async def artifact(request: Request, actor: Reader, version: str) -> dict[str, Any]:
    """One artifact with its card."""
    if version == BUNDLED:
        listed = await _read(request, lambda connection: list_artifacts(connection, bundled())[0])
        return {**listed, "card": bundled()["card"]}
    found = await _read(request, lambda connection: show_artifact(connection, version))
    if found is None:
        raise NotFound(f"There is no artifact {version!r}.")
    return found


@routes.get("/router/artifacts/{version}/file")
async def artifact_file(request: Request, actor: Reader, version: str) -> Response:
    """Its bytes, as they were added."""
    found = await _read(request, lambda connection: artifact_bytes(connection, version))
    if found is None:
        raise NotFound(f"There is no artifact {version!r} in the database.")
    return Response(found[0], media_type="application/octet-stream", headers={"etag": f'"{found[1]}"'})


@routes.delete("/router/artifacts/{version}")
async def delete_artifact(request: Request, actor: Changer, version: str) -> dict[str, Any]:
    """Remove an artifact that no policy uses."""
    given = (version, actor.title, time.time(), services_of(request).catalog.policies)
    await _change(request, lambda connection: remove_artifact(connection, *given))
    return {"removed": version}


@routes.get("/router/assignments")
async def assignments(request: Request, actor: Reader) -> list[dict[str, Any]]:
    """Champion, challenger and its share, for every policy."""
    policies = sorted(services_of(request).catalog.policies)
    return await _read(request, lambda connection: list_assignments(connection, policies))


@routes.put("/router/assignments/{policy}")
async def put_assignment(request: Request, actor: Changer, policy: str, body: NewAssignment) -> dict[str, Any]:
    """Give a policy its artifacts; gateways use them within two seconds."""
    catalog = services_of(request).catalog
    known_policy(catalog, policy)
    if body.challenger is None and "share" in body.model_fields_set:
        raise InvalidValue("`share` is a challenger's: name it with `challenger`, or leave `share` out.", param="share")
    room = Room(MOST_LOADED, catalog.policies)
    given = (policy, body.champion, body.challenger, body.share, actor.title, time.time(), body.reason, room)
    return assignment_document(await _change(request, lambda connection: assign(connection, *given)))


@routes.post("/router/assignments/{policy}/rollback")
async def post_rollback(request: Request, actor: Changer, policy: str, body: Reason) -> dict[str, Any]:
    """End the challenger or, without one, return to the champion before."""
    known_policy(services_of(request).catalog, policy)

    def change(connection: Connection) -> dict[str, Any]:
        made = roll_back(connection, policy, actor.title, time.time(), body.reason)
        assert made is not None, "without an expectation it is rolled back or refused"
        return assignment_document(made)

    return await _change(request, change)


@routes.get("/router/changes")
async def changes(
    request: Request, actor: Reader, limit: Limit = 50, before: Before = None, policy: PolicyName = None
) -> dict[str, Any]:
    """Who changed which policy's artifacts, and why; `next` is the `before` of the following page."""
    page = await _read(request, lambda connection: change_page(connection, limit, before, policy))
    return {"changes": page.rows, "next": page.next}


@routes.get("/router/drift")
async def drift(
    request: Request, actor: Reader, limit: Limit = 50, before: Before = None, policy: PolicyName = None
) -> dict[str, Any]:
    """What was measured of drift, newest first; `next` is the `before` of the following page."""
    page = await _read(request, lambda connection: drift_page(connection, limit, before, policy))
    return {"drift": page.rows, "next": page.next}
