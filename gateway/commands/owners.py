"""What commands about keys, budgets, limits and members share: configuration and database, durations, who is asking."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.db.connect import Database
    from gateway.keys.scopes import Owner

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
LONGEST = 100 * 366 * 86_400


class Duration(click.ParamType[float]):
    """`90s`, `30m`, `24h` or `7d`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; refuses anything else with the forms it takes."""
        if isinstance(value, float):
            return value
        text = str(value)
        number = text[:-1]
        if text[-1:] in UNITS and number.isascii() and number.isdigit() and int(number) * UNITS[text[-1]] <= LONGEST:
            return float(int(number) * UNITS[text[-1]])
        self.fail(f"{text!r} is not a duration; write for example 90s, 30m, 24h or 7d.", param, ctx)


def actor() -> str:
    """Who changes something, for the audit log: the user of this machine who runs the command."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a container may run as a user without a name
        return "command line"


def note_change(
    database: Database, action: str, what: str, tenant: str | None = None, after: dict[str, Any] | None = None
) -> None:
    """Add to the audit log what a command has just done to prices, credits or invoices, which keep their own history."""
    from gateway.db.audit import Change, record_audit

    record_audit(database, actor(), time.time(), Change(action, what, tenant, after=after))


@contextmanager
def open_owners(settings: Settings) -> Iterator[tuple[Catalog, Database]]:
    """The configured tenants and keys, and the database. Secrets that are not set are no error: nothing is served here."""
    from gateway.commands.configuration import known_catalog
    from gateway.commands.database import open_database

    catalog = known_catalog(settings)
    with open_database(settings) as database:
        yield catalog, database


def owner_given(text: str, catalog: Catalog, database: Database) -> Owner:
    """The owner that a SCOPE names."""
    from gateway.keys.queries import list_keys
    from gateway.keys.scopes import find_owner

    return find_owner(text, catalog, list_keys(database) if text.startswith("key:") else ())


def utc(moment: datetime | None) -> float | None:
    """Seconds since the epoch; times without a zone are UTC, as all times in Penstock are."""
    if moment is None:
        return None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def moment_text(seconds: float | None) -> str | None:
    """A moment for people and JSON."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds is not None else None
