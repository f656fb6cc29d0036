"""Artifacts as the door handles them, by the admin API and the command line alike: checked before they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import transaction
from gateway.errors import InvalidValue
from gateway.routing.artifacts.change import add_artifact
from gateway.routing.artifacts.queries import BUNDLED, StoredArtifact
from gateway.routing.artifacts.show import show_artifact
from gateway.scorers import CheckedArtifact, bundled_card, bundled_version, check_artifact


def add(
    database: Database, content: bytes, name: str, actor: str, now: float, source: str = "file", base: str | None = None
) -> dict[str, Any]:
    """Check a file and keep it. Raises InvalidValue when it cannot be served with, Conflict for another one of its version."""
    checked = check(content, name)
    with transaction(database) as connection:
        return keep(connection, checked, actor, now, source, base)


def check(content: bytes, name: str) -> CheckedArtifact:
    """A file that may be kept. Raises InvalidValue when it cannot be served with."""
    checked = check_artifact(content, name)
    if checked.version == BUNDLED:
        raise InvalidValue(f"an artifact cannot be called {checked.version!r}; train it under another name.")
    if checked.version == bundled_version():
        raise InvalidValue(f"artifact {checked.version!r} is the bundled one, which is always there as {BUNDLED!r}.")
    return checked


def keep(
    connection: Connection,
    checked: CheckedArtifact,
    actor: str,
    now: float,
    source: str = "file",
    base: str | None = None,
) -> dict[str, Any]:
    """Keep what was checked, in an open transaction. Raises Conflict for another artifact of its version."""
    made = StoredArtifact(checked.version, checked.sha256, checked.card, moment(now), actor, source, base)
    add_artifact(connection, made, checked.content)
    shown = show_artifact(connection, checked.version)
    assert shown is not None, "it was added in this transaction or before"
    return shown


@lru_cache(maxsize=1)
def bundled() -> Mapping[str, Any]:
    """Version and card of the artifact in the package."""
    return {"version": bundled_version(), "card": bundled_card()}


def known_policy(catalog: Catalog, policy: str) -> str:
    """The policy's name. Raises InvalidValue for one that the configuration does not have."""
    if policy not in catalog.policies:
        known = ", ".join(sorted(catalog.policies))
        raise InvalidValue(f"policy {policy!r} is not in the configuration. Known: {known}.", param="policy")
    return policy
