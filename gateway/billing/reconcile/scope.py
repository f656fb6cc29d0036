"""Which part of our book a kept bill is about, and how it is to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.billing.reconcile.book.queries import Whose
from gateway.billing.reconcile.lines import Settings


def settings_of(bill: Mapping[str, Any]) -> Settings:
    """How a kept bill is to be read."""
    kept = bill["settings"]
    models = tuple((theirs, ours) for theirs, ours in kept["models"])
    return Settings(kept["zone"], tuple(kept["ours"]), models, kept["booked_as"], tuple(kept["only"]))


def whose(bill: Mapping[str, Any]) -> Whose:
    """The provider and the models whose usage is compared."""
    settings = settings_of(bill)
    return Whose(settings.booked_as or bill["provider"], settings.only)
