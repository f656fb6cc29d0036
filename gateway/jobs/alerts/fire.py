"""Gives one alert: a row that says so and the messages to its receivers, in one transaction, so that it is given once."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from gateway.catalog_outlets import AlertTargets
from gateway.db.outbox import ALERTS, EMAIL, Event, destination, send_later
from gateway.db.tables import moment
from gateway.jobs.alerts import queries

AlertKind = Literal["budget", "dead_letters", "events", "books", "router_change", "router_drift"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    """What is so. `key` (scope, period, window, percent) tells it from others of its kind; `data` goes to the receivers.

    `subject` and `text` are for people. Without a tenant it is for the operator.
    """

    kind: AlertKind
    key: tuple[str, str, str, int]
    tenant: str | None
    subject: str
    text: str
    data: Mapping[str, Any]


def fire(connection: Connection, alert: Alert, targets: AlertTargets | None, now: float) -> bool:
    """Give an alert, unless it stands already; it is logged and listed even if nobody is to be told."""
    scope, period, window, percent = alert.key
    alert_id = f"alert_{secrets.token_hex(16)}"
    row = {
        "id": alert_id,
        "kind": alert.kind,
        "tenant": alert.tenant,
        "scope": scope,
        "period": period,
        "window": window,
        "percent": percent,
        "document": {"subject": alert.subject, **alert.data},
        "fired_at": moment(now),
    }
    if not queries.add_alert(connection, row):
        return False
    data = {"kind": alert.kind, "subject": alert.subject, "text": alert.text, **alert.data}
    event = Event(alert_id, f"penstock.alert.{alert.kind}", alert.tenant, now, data)
    if targets is not None and targets.webhook is not None:
        send_later(connection, destination(ALERTS, alert.tenant), [event], now)
    if targets is not None and targets.email:
        send_later(connection, destination(EMAIL, alert.tenant), [event], now)
    logger.warning("alert: %s", alert.subject)
    return True
