"""Tells the operator about artifacts: of a change once, of what is so while it is so. Rows and messages are one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from gateway.jobs.alerts import queries
from gateway.jobs.alerts.fire import Alert, AlertKind, fire
from gateway.jobs.runner import Context


def tell_change(
    connection: Connection, context: Context, policy: str, action: str, since: str, text: str, data: Mapping[str, Any]
) -> None:
    """A change of an assignment that a job has made; it is told once and ends with that."""
    key, now = (policy, action, since, 0), context.now()
    subject = f"Penstock: router of policy {policy}: {action}"
    alert = Alert("router_change", key, None, subject, f"{text}\n", {"policy": policy, "action": action, **data})
    fire(connection, alert, context.catalog.outlets.alerts, now)
    queries.end_alert(connection, "router_change", key, now)


def tell_state(
    connection: Connection,
    context: Context,
    kind: AlertKind,
    policy: str,
    what: str,
    text: str | None,
    data: Mapping[str, Any],
) -> bool:
    """Something that is so: told when it begins, ended when `text` is None. True when it has begun or ended just now."""
    key, now = (policy, what, "", 0), context.now()
    stands = key in queries.standing(connection, kind, [""], [policy])
    if stands == (text is not None):
        return False
    if text is None:
        queries.end_alert(connection, kind, key, now)
        return True
    subject = f"Penstock: router of policy {policy}: {text}"
    alert = Alert(kind, key, None, subject, f"{text}\n", {"policy": policy, "measure": what, **data})
    return fire(connection, alert, context.catalog.outlets.alerts, now)
