"""What is to be exported, and the inputs that decide whether files of an earlier run are still right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection

from gateway import __version__
from gateway.billing.exports import queries
from gateway.billing.exports.books import Books, read_books
from gateway.billing.exports.columns import moment_text
from gateway.billing.exports.focus import Perspective, View
from gateway.billing.exports.focus_columns import FOCUS_VERSION
from gateway.billing.exports.month import Slice, at_midnight, slices
from gateway.billing.exports.queries import Fingerprint
from gateway.billing.exports.sinks import Format
from gateway.billing.periods.month import Month

What = Literal["focus", "usage", "journal"]
SCHEMA_VERSION = 2
"""Raised when columns or their meaning change, so that files of before are written again."""


@dataclass(frozen=True, slots=True)
class Order:
    """One export. `tenant` None means all of them; a journal is always of all, or it would not balance.

    `day` exports only what started on that day of the month, before anything is invoiced. `tags` are the keys that rows of
    FOCUS are split by.
    """

    what: What
    month: Month
    form: Format
    view: View = "tenant"
    tenant: str | None = None
    operator: str = "Penstock"
    day: date | None = None
    tags: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its folder: one per order, so that orders do not overwrite each other."""
        view = () if self.what == "journal" else (self.view,)
        tenant = () if self.tenant is None else (_as_file_name(self.tenant),)
        return "-".join((self.what, *view, self.form, self.period, *tenant))

    @property
    def period(self) -> str:
        """`2026-11`, or `2026-11-30` for a day."""
        return str(self.month) if self.day is None else self.day.isoformat()

    @property
    def window(self) -> tuple[datetime, datetime]:
        """From when until when things happened that are exported."""
        if self.day is None:
            return self.month.start, self.month.end
        return at_midnight(self.day), at_midnight(self.day + timedelta(days=1))

    @property
    def perspective(self) -> Perspective:
        """Whose bill it is."""
        return Perspective(self.view, self.operator, self.month)

    def slices(self, books: Books) -> Iterator[Slice]:
        """The usage that it is of."""
        return slices(self.month, books.late, self.day)


def books_of(connection: Connection, order: Order) -> Books:
    """What is known about the order's month. Documents are of whole months and of what tenants pay."""
    documents = order.what == "focus" and order.view == "tenant" and order.day is None
    return read_books(connection, order.month, order.tenant, invoiced=documents)


def fingerprint(connection: Connection, order: Order, books: Books) -> Fingerprint:
    """Of all slices together."""
    parts = [queries.fingerprint(connection, part, order.tenant) for part in order.slices(books)]
    return Fingerprint(
        sum(part.requests for part in parts),
        sum(part.units for part in parts),
        sum(part.cost_pico for part in parts),
        sum(part.charge_pico for part in parts),
        max((part.last for part in parts if part.last is not None), default=None),
    )


def inputs_of(connection: Connection, order: Order, books: Books, found: Fingerprint) -> dict[str, Any]:
    """Everything the files depend on, for the manifest: equal inputs give equal files."""
    others = queries.other_transactions(connection, *order.window) if order.what == "journal" else None
    return {
        "export": order.what,
        "format": order.form,
        "view": None if order.what == "journal" else order.view,
        "period": order.period,
        "tenant": order.tenant,
        "operator": order.operator if order.what == "focus" else None,
        "tags": list(order.tags) if order.what == "focus" else None,
        **books.as_inputs(),
        "penstock_version": __version__,
        "schema_version": SCHEMA_VERSION,
        "focus_version": FOCUS_VERSION if order.what == "focus" else None,
        "requests": found.requests,
        "units": found.units,
        "cost_pico": found.cost_pico,
        "charge_pico": found.charge_pico,
        "last_finished_at": moment_text(found.last) if found.last is not None else None,
        "other_transactions": others,
    }


def _as_file_name(tenant: str) -> str:
    """A tenant's name as part of a folder's name; one that needs changing keeps a piece of its hash, to stay distinct."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tenant)[:60]
    return plain if plain == tenant else f"{plain}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"
