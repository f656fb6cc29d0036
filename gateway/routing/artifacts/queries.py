"""The SQL of the router's artifacts: the files, which policy uses which, and the changes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from gateway.db.insert import insert_missing
from gateway.db.router_tables import router_artifacts, router_assignments, router_changes, router_drift
from gateway.db.tables import moment

BUNDLED = "bundled"
"""What the artifact in the package is called wherever a version is written."""

REFERENCE = "reference"
"""The measure of the rows that hold what windows are compared with."""

ChangeAction = Literal["assign", "propose", "promote", "rollback"]
_SHOWN = [column for column in router_artifacts.c if column.name != "bytes"]


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as it is listed; its bytes are read when they are needed."""

    version: str
    sha256: str
    card: Mapping[str, Any]
    made_at: datetime
    made_by: str
    source: str
    base: str | None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which artifacts a policy uses; versions, or `bundled`. The challenger gets `share` of the requests.

    `predecessor` is the champion before this one, until a rollback has returned to it.
    """

    policy: str
    champion: str
    challenger: str | None
    share: float
    predecessor: str | None
    champion_since: datetime
    since: datetime
    set_by: str

    def versions(self) -> set[str]:
        """What must be loaded to serve it."""
        return {self.champion, *([self.challenger] if self.challenger else [])}

    def document(self) -> dict[str, Any]:
        """What a change row says of it."""
        return {"champion": self.champion, "challenger": self.challenger, "share": self.share}


def artifact_rows(connection: Connection) -> list[StoredArtifact]:
    """All artifacts, newest first, without their bytes."""
    query = select(*_SHOWN).order_by(router_artifacts.c.made_at.desc(), router_artifacts.c.version)
    return [StoredArtifact(**row) for row in connection.execute(query).mappings()]


def artifact_row(connection: Connection, version: str) -> StoredArtifact | None:
    """One artifact without its bytes."""
    row = connection.execute(select(*_SHOWN).where(router_artifacts.c.version == version)).mappings().one_or_none()
    return StoredArtifact(**row) if row is not None else None


def artifact_bytes(connection: Connection, version: str) -> tuple[bytes, str] | None:
    """The file and its SHA-256 as it was added."""
    query = select(router_artifacts.c.bytes, router_artifacts.c.sha256).where(router_artifacts.c.version == version)
    row = connection.execute(query).one_or_none()
    return (bytes(row[0]), row[1]) if row is not None else None


def insert_artifact(connection: Connection, artifact: StoredArtifact, content: bytes) -> bool:
    """Keep an artifact; False when there is one of this version already."""
    if connection.scalar(select(router_artifacts.c.version).where(router_artifacts.c.version == artifact.version)):
        return False
    row = {name: getattr(artifact, name) for name in StoredArtifact.__dataclass_fields__}
    connection.execute(insert(router_artifacts).values(**row, bytes=content))
    return True


def delete_artifact(connection: Connection, version: str) -> bool:
    """Remove an artifact; False when there is none."""
    return connection.execute(delete(router_artifacts).where(router_artifacts.c.version == version)).rowcount > 0


def lock_artifact(connection: Connection, version: str) -> bool:
    """Keep an artifact from being removed or assigned by another one until the transaction ends; False when there is none."""
    query = select(router_artifacts.c.version).where(router_artifacts.c.version == version).with_for_update()
    return connection.scalar(query) is not None


def policies_using(connection: Connection, version: str) -> list[str]:
    """The policies that serve with a version or would return to it."""
    table = router_assignments.c
    query = select(table.policy).where(
        or_(table.champion == version, table.challenger == version, table.predecessor == version)
    )
    return list(connection.scalars(query.order_by(table.policy)))


def delete_assignments(connection: Connection, policies: Sequence[str]) -> None:
    """Forget what policies were given."""
    connection.execute(delete(router_assignments).where(router_assignments.c.policy.in_(policies)))


def assignment_rows(connection: Connection) -> dict[str, Assignment]:
    """Every policy that has ever been given an artifact."""
    rows = connection.execute(select(router_assignments).order_by(router_assignments.c.policy)).mappings()
    return {row["policy"]: _assignment(row) for row in rows}


def lock_assignment(connection: Connection, policy: str, now: float) -> Assignment:
    """A policy's assignment, kept from changing until the transaction ends; the bundled one from the start on."""
    beginning = {"policy": policy, "challenger_share": 0.0, "set_by": ""}
    fresh = {"champion_since": moment(now), "since": moment(now)}
    insert_missing(connection, router_assignments, [beginning | fresh])
    query = select(router_assignments).where(router_assignments.c.policy == policy).with_for_update()
    return _assignment(connection.execute(query).mappings().one())


def write_assignment(connection: Connection, given: Assignment) -> None:
    """Put an assignment in the place of the one that is locked."""
    values = {name: getattr(given, name) for name in ("challenger", "predecessor", "champion_since", "since", "set_by")}
    values |= {"champion": None if given.champion == BUNDLED else given.champion, "challenger_share": given.share}
    connection.execute(update(router_assignments).where(router_assignments.c.policy == given.policy).values(**values))


def insert_change(
    connection: Connection,
    now: float,
    actor: str,
    action: ChangeAction,
    before: Assignment,
    after: Assignment,
    reason: str,
    evidence: Mapping[str, Any] | None,
) -> int:
    """Note a change; its number."""
    statement = insert(router_changes).values(
        policy=after.policy,
        at=moment(now),
        actor=actor,
        action=action,
        before=before.document(),
        after=after.document(),
        reason=reason,
        evidence=dict(evidence) if evidence is not None else None,
    )
    number: int = connection.execute(statement.returning(router_changes.c.id)).scalar_one()
    return number


def change_rows(
    connection: Connection, at_most: int, before: int | None = None, policy: str | None = None
) -> Sequence[RowMapping]:
    """Changes, newest first; `before` is the number of the last one of the page before."""
    query = select(router_changes).order_by(router_changes.c.id.desc()).limit(at_most)
    if before is not None:
        query = query.where(router_changes.c.id < before)
    if policy is not None:
        query = query.where(router_changes.c.policy == policy)
    return connection.execute(query).mappings().all()


def _assignment(row: RowMapping) -> Assignment:
    same = ("policy", "challenger", "predecessor", "champion_since", "since", "set_by")
    return Assignment(
        **{name: row[name] for name in same},
        champion=row["champion"] or BUNDLED,
        share=row["challenger_share"],
    )


def insert_drift(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was measured."""
    if rows:
        connection.execute(insert(router_drift), [dict(row) for row in rows])


def find_reference(connection: Connection, policy: str, artifact: str) -> dict[str, Any] | None:
    """What the requests of a policy under an artifact are compared with, once it is there."""
    table = router_drift.c
    query = select(table.document).where(table.policy == policy, table.artifact == artifact, table.measure == REFERENCE)
    found: dict[str, Any] | None = connection.scalar(query.order_by(table.id.desc()).limit(1))
    return found


def drift_rows(
    connection: Connection, at_most: int, before: int | None = None, policy: str | None = None
) -> Sequence[RowMapping]:
    """What was measured, newest first; `before` is the number of the last one of the page before."""
    query = select(router_drift).order_by(router_drift.c.id.desc()).limit(at_most)
    if before is not None:
        query = query.where(router_drift.c.id < before)
    if policy is not None:
        query = query.where(router_drift.c.policy == policy)
    return connection.execute(query).mappings().all()


def versions_taken_back(connection: Connection, policy: str, since: datetime) -> set[str]:
    """What rollbacks of a policy have ended since a moment: challengers, or champions."""
    table = router_changes.c
    query = select(table.before).where(table.policy == policy, table.action == "rollback", table.at >= since)
    return {before["challenger"] or before["champion"] for before in connection.scalars(query)}


def latest_drift(connection: Connection, since: float) -> list[tuple[str, str, float]]:
    """Policy, measure and value as last measured since a moment."""
    table = router_drift.c
    newest = select(func.max(table.id)).where(table.at >= moment(since), table.measure != REFERENCE)
    query = select(table.policy, table.measure, table.value)
    query = query.where(table.id.in_(newest.group_by(table.policy, table.measure)))
    return [(row.policy, row.measure, row.value) for row in connection.execute(query)]


def forget_drift(connection: Connection, until: float) -> None:
    """Remove what was measured before a moment; references stay."""
    table = router_drift.c
    connection.execute(delete(router_drift).where(table.at < moment(until), table.measure != REFERENCE))
