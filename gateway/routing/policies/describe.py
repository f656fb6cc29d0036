"""Policies and terms as JSON for the admin API and the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.routing.policies.live import Standing, standing
from gateway.routing.policies.queries import read_overrides


def policies_now(catalog: Catalog, database: Database) -> list[dict[str, Any]]:
    """Every policy: as it counts, which keys were set at run time, by whom and when, and which of them do not fit (`left_out`).
    Raises Unavailable.
    """
    with snapshot(database) as connection:
        overrides = read_overrides(connection)
    return [describe_policy(each) for each in standing(catalog, overrides)]


def describe_policy(each: Standing) -> dict[str, Any]:
    """One policy."""
    override = each.override
    return {
        "name": each.name,
        "policy": each.policy.model_dump(mode="json"),
        "set": override.settings if override is not None else None,
        "left_out": dict(each.left_out),
        "set_at": datetime.fromtimestamp(override.created_at, UTC).isoformat() if override is not None else None,
        "set_by": override.created_by if override is not None else None,
    }
