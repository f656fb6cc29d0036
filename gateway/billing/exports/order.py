"""What is to be exported, and the inputs that decide whether files of an earlier run are still right."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from gateway import __version__
from gateway.billing.exports import queries
from gateway.billing.exports.columns import moment_text
from gateway.billing.exports.focus import Perspective, View
from gateway.billing.exports.focus_columns import FOCUS_VERSION
from gateway.billing.exports.invoiced import Invoiced
from gateway.billing.exports.month import BillingMonth, Closing, slices
from gateway.billing.exports.queries import Fingerprint
from gateway.billing.exports.sinks import Format

What = Literal["focus", "usage", "journal"]
SCHEMA_VERSION = 1
"""Raised when columns or their meaning change, so that files of before are written again."""


@dataclass(frozen=True, slots=True)
class Order:
    """One export. `tenant` None means all of them; a journal is always of all, or it would not balance."""

    what: What
    month: BillingMonth
    form: Format
    view: View = "tenant"
    tenant: str | None = None
    operator: str = "Penstock"
    closing: Closing = field(default_factory=Closing)
    invoiced: Invoiced = field(default_factory=Invoiced)

    @property
    def folder(self) -> str:
        """The name of its folder: one per order, so that orders do not overwrite each other."""
        view = () if self.what == "journal" else (self.view,)
        tenant = () if self.tenant is None else (_as_file_name(self.tenant),)
        return "-".join((self.what, *view, self.form, self.month.label, *tenant))

    @property
    def perspective(self) -> Perspective:
        """Whose bill it is."""
        return Perspective(self.view, self.operator, self.month)


def fingerprint(connection: Connection, order: Order) -> Fingerprint:
    """Of all slices together."""
    parts = [queries.fingerprint(connection, part, order.tenant) for part in slices(order.month, order.closing)]
    return Fingerprint(
        sum(part.requests for part in parts),
        sum(part.units for part in parts),
        sum(part.cost_pico for part in parts),
        sum(part.charge_pico for part in parts),
        max((part.last for part in parts if part.last is not None), default=None),
    )


def inputs_of(connection: Connection, order: Order, found: Fingerprint) -> dict[str, Any]:
    """Everything the files depend on, for the manifest: equal inputs give equal files."""
    others = queries.other_transactions(connection, order.month) if order.what == "journal" else None
    return {
        "export": order.what,
        "format": order.form,
        "view": None if order.what == "journal" else order.view,
        "period": order.month.label,
        "tenant": order.tenant,
        "operator": order.operator if order.what == "focus" else None,
        "previous_closed_at": _moment(order.closing.previous),
        "closed_at": _moment(order.closing.this),
        "invoices_sha256": order.invoiced.digest(),
        "penstock_version": __version__,
        "schema_version": SCHEMA_VERSION,
        "focus_version": FOCUS_VERSION if order.what == "focus" else None,
        "requests": found.requests,
        "units": found.units,
        "cost_pico": found.cost_pico,
        "charge_pico": found.charge_pico,
        "last_finished_at": _moment(found.last),
        "other_transactions": others,
    }


def _moment(value: datetime | None) -> str | None:
    return moment_text(value) if value is not None else None


def _as_file_name(tenant: str) -> str:
    """A tenant's name as part of a folder's name; one that needs changing keeps a piece of its hash, to stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tenant)[:60]
    return plain if plain == tenant else f"{plain}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"
