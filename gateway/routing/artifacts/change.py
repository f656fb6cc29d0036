"""Adding, removing and assigning artifacts, each with its audit row; every change of an assignment has a reason.

These work in a transaction that is open already, so that whatever else belongs to a change is written with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from gateway.db.audit import Change, write_audit
from gateway.db.tables import moment
from gateway.errors import Conflict, InvalidValue, NotFound
from gateway.routing.artifacts.queries import (
    BUNDLED,
    Assignment,
    ChangeAction,
    StoredArtifact,
    artifact_row,
    assignment_rows,
    delete_artifact,
    delete_assignments,
    insert_artifact,
    insert_change,
    lock_artifact,
    lock_assignment,
    policies_using,
    write_assignment,
)

LARGEST_SHARE = 0.5
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class Room:
    """What gateways hold beside the bundled artifact: at most `most`, for these policies.

    Assignments of policies that the configuration no longer has take no room and keep nothing from being removed.
    """

    most: int
    policies: Collection[str]


def add_artifact(connection: Connection, artifact: StoredArtifact, content: bytes) -> StoredArtifact:
    """Keep an artifact that was checked; adding the same file again changes nothing. Raises Conflict."""
    if insert_artifact(connection, artifact, content):
        after = {"sha256": artifact.sha256, "bytes": len(content), "source": artifact.source, "base": artifact.base}
        change = Change("router.artifact.add", f"artifact:{artifact.version}", after=after)
        write_audit(connection, artifact.made_by, artifact.made_at.timestamp(), change)
        return artifact
    there = artifact_row(connection, artifact.version)
    assert there is not None, "it could not be inserted because it is there"
    if there.sha256 != artifact.sha256:
        raise Conflict(
            f"There is another artifact of version {artifact.version!r} (SHA-256 {there.sha256[:12]}..., not "
            f"{artifact.sha256[:12]}...). Give one of them another name when it is trained."
        )
    return there


def remove_artifact(connection: Connection, version: str, actor: str, now: float, policies: Collection[str]) -> None:
    """Remove an artifact that none of the configured policies uses or would return to. Raises NotFound, Conflict.

    Other policies that were given it lose their assignment: should they come back, they start with the bundled artifact.
    """
    if version == BUNDLED:
        raise Conflict("The bundled artifact belongs to the package and is always there.")
    lock_artifact(connection, version)
    users = policies_using(connection, version)
    if configured := [policy for policy in users if policy in policies]:
        raise Conflict(
            f"Artifact {version!r} is in use, or what a rollback would return to, for: {', '.join(configured)}. "
            "Assign other artifacts there first."
        )
    delete_assignments(connection, users)
    if not delete_artifact(connection, version):
        raise NotFound(f"There is no artifact {version!r}. `penstock router artifacts list` shows them.")
    before = {"assigned_to": users} if users else None
    write_audit(connection, actor, now, Change("router.artifact.remove", f"artifact:{version}", before=before))


def assign(
    connection: Connection,
    policy: str,
    champion: str,
    challenger: str | None,
    share: float,
    actor: str,
    now: float,
    reason: str,
    room: Room,
) -> Assignment:
    """Give a policy its champion and, for a share of its requests, a challenger.

    Raises NotFound, InvalidValue, Conflict.
    """
    before = lock_assignment(connection, policy, now)
    after = _followed(before, champion, challenger, share, actor, now)
    return _change(connection, "assign", before, after, now, reason, None, room)


def propose(
    connection: Connection, policy: str, challenger: str, share: float, actor: str, now: float, reason: str, room: Room
) -> Assignment | None:
    """Make an artifact the challenger, unless there is one already: None then."""
    before = lock_assignment(connection, policy, now)
    if before.challenger is not None or before.champion == challenger:
        return None
    after = _followed(before, before.champion, challenger, share, actor, now)
    return _change(connection, "propose", before, after, now, reason, None, room)


def roll_back(
    connection: Connection,
    policy: str,
    actor: str,
    now: float,
    reason: str,
    evidence: Mapping[str, Any] | None = None,
    expected: Assignment | None = None,
) -> Assignment | None:
    """End the challenger or, where there is none, return to the champion before this one.

    Raises Conflict when there is nothing to return to. With `expected`, None when the assignment is no longer that one.
    """
    before = lock_assignment(connection, policy, now)
    if expected is not None and before != expected:
        return None
    if before.challenger is not None:
        after = dataclasses.replace(before, challenger=None, share=0.0, since=moment(now), set_by=actor)
    elif before.predecessor is not None:
        after = _followed(before, before.predecessor, None, 0.0, actor, now)
        after = dataclasses.replace(after, predecessor=None)
    else:
        raise Conflict(
            f"Policy {policy!r} has no challenger, and no champion before {before.champion!r} to return to. "
            f"Assign one with `penstock router assign {policy} --champion VERSION`."
        )
    return _change(connection, "rollback", before, after, now, reason, evidence)


def promote(
    connection: Connection,
    policy: str,
    actor: str,
    now: float,
    reason: str,
    evidence: Mapping[str, Any] | None,
    expected: Assignment,
) -> Assignment | None:
    """Make the challenger the champion; None when the assignment is no longer the expected one."""
    before = lock_assignment(connection, policy, now)
    if before != expected or before.challenger is None:
        return None
    after = _followed(before, before.challenger, None, 0.0, actor, now)
    return _change(connection, "promote", before, after, now, reason, evidence)


def _followed(
    before: Assignment, champion: str, challenger: str | None, share: float, actor: str, now: float
) -> Assignment:
    """The assignment after one, with what a rollback returns to. Raises InvalidValue."""
    if challenger == champion:
        raise InvalidValue(f"{champion!r} cannot be champion and challenger at once.", param="challenger")
    if challenger is not None and not 0 < share <= LARGEST_SHARE:
        raise InvalidValue(f"A share of {share!r} is not possible: above 0, at most {LARGEST_SHARE}.", param="share")
    changed = champion != before.champion
    return Assignment(
        policy=before.policy,
        champion=champion,
        challenger=challenger,
        share=share if challenger is not None else 0.0,
        predecessor=before.champion if changed else before.predecessor,
        champion_since=moment(now) if changed else before.champion_since,
        since=moment(now),
        set_by=actor,
    )


def _change(
    connection: Connection,
    action: ChangeAction,
    before: Assignment,
    after: Assignment,
    now: float,
    reason: str,
    evidence: Mapping[str, Any] | None,
    room: Room | None = None,
) -> Assignment:
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise InvalidValue(f"Give a reason of at most {LONGEST_REASON} characters.", param="reason")
    for version in sorted(after.versions() - {BUNDLED}):
        if not lock_artifact(connection, version):
            raise NotFound(
                f"There is no artifact {version!r}. `penstock router artifacts list` shows them; `bundled` is always there."
            )
    if room is not None:
        _check_room(connection, after, room)
    write_assignment(connection, after)
    insert_change(connection, now, after.set_by, action, before, after, reason, evidence)
    change = Change(f"router.{action}", f"policy:{after.policy}", before=before.document(), after=after.document())
    write_audit(connection, after.set_by, now, change)
    return after


def _check_room(connection: Connection, given: Assignment, room: Room) -> None:
    assigned = {**assignment_rows(connection), given.policy: given}
    serving = [each for policy, each in assigned.items() if policy in room.policies]
    used = sorted({version for each in serving for version in each.versions()} - {BUNDLED})
    if len(used) > room.most:
        raise Conflict(
            f"Gateways hold {room.most} artifacts beside the bundled one, and this would be {len(used)}: {', '.join(used)}."
        )
