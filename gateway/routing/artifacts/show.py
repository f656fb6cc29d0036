"""Artifacts, assignments, changes and drift for people and programs: plain JSON, the bundled artifact always first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from gateway.routing.artifacts.queries import (
    BUNDLED,
    Assignment,
    StoredArtifact,
    artifact_row,
    artifact_rows,
    assignment_rows,
    change_rows,
    drift_rows,
)

LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows for JSON, newest first; `next` asks for the page after it, None at the end."""

    rows: list[dict[str, Any]]
    next: int | None


def list_artifacts(connection: Connection, bundled: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every artifact with the policies that use it; `bundled` is what the package says of its own."""
    assignments = assignment_rows(connection)
    return [
        bundled_document(bundled, assignments),
        *(_artifact(each, assignments) for each in artifact_rows(connection)),
    ]


def show_artifact(connection: Connection, version: str) -> dict[str, Any] | None:
    """One artifact that is in SQL with its card; None when it is not there."""
    found = artifact_row(connection, version)
    if found is None:
        return None
    return {**_artifact(found, assignment_rows(connection)), "card": dict(found.card)}


def bundled_document(bundled: Mapping[str, Any], assignments: Mapping[str, Assignment]) -> dict[str, Any]:
    """The artifact of the package; every policy without an assignment uses it, too."""
    document = {"version": BUNDLED, "called": bundled["version"], "source": "package", "base": None}
    return {**document, "made_at": None, "made_by": None, "sha256": None, **_uses(BUNDLED, assignments)}


def list_assignments(connection: Connection, policies: Sequence[str]) -> list[dict[str, Any]]:
    """What every policy uses; those that were never given an artifact use the bundled one."""
    assigned = assignment_rows(connection)
    fresh = {"champion": BUNDLED, "challenger": None, "share": 0.0, "predecessor": None}
    unset = {"champion_since": None, "since": None, "set_by": None}
    return [
        assignment_document(assigned[policy]) if policy in assigned else {"policy": policy, **fresh, **unset}
        for policy in sorted({*policies, *assigned})
    ]


def assignment_document(given: Assignment) -> dict[str, Any]:
    """One assignment for JSON."""
    names = ("policy", "champion", "challenger", "share", "predecessor", "champion_since", "since", "set_by")
    return {name: _plain(getattr(given, name)) for name in names}


def change_page(connection: Connection, limit: int, before: int | None = None, policy: str | None = None) -> Page:
    """Changes of assignments with their reasons."""
    limit = max(1, min(limit, LARGEST_PAGE))
    return _page(change_rows(connection, limit + 1, before, policy), limit)


def drift_page(connection: Connection, limit: int, before: int | None = None, policy: str | None = None) -> Page:
    """What was measured of drift; references are among it."""
    limit = max(1, min(limit, LARGEST_PAGE))
    return _page(drift_rows(connection, limit + 1, before, policy), limit)


def _page(rows: Sequence[Mapping[Any, Any]], limit: int) -> Page:
    shown = [{str(name): _plain(value) for name, value in row.items()} for row in rows[:limit]]
    return Page(shown, shown[-1]["id"] if len(rows) > limit else None)


def _artifact(found: StoredArtifact, assignments: Mapping[str, Assignment]) -> dict[str, Any]:
    names = ("version", "source", "base", "made_at", "made_by", "sha256")
    return {**{name: _plain(getattr(found, name)) for name in names}, **_uses(found.version, assignments)}


def _uses(version: str, assignments: Mapping[str, Assignment]) -> dict[str, list[str]]:
    given = assignments.values()
    return {
        "champion_of": [each.policy for each in given if each.champion == version],
        "challenger_of": [each.policy for each in given if each.challenger == version],
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
