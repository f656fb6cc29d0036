"""Changing the book by rule (pure): where a new price goes in time, and how a seed differs from what is there."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.billing.prices.choose import Key, Price

BY_HAND = "penstock prices set"
"""The source of rows that a person made; `sync` leaves them alone."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a price enters the book: which rows end when, and when the new one ends because a later one is scheduled."""

    ends: tuple[tuple[int, datetime], ...]
    valid_to: datetime | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One price that a seed would change: `old` is None for a new one, `new` for one that the seed does not have."""

    old: Price | None
    new: Price | None

    @property
    def percent(self) -> Decimal | None:
        """How much dearer it becomes, to a tenth of a percent; None without an old price or from zero."""
        if self.old is None or self.new is None or self.old.rate == 0:
            return None
        return (Decimal(self.new.rate - self.old.rate) * 100 / self.old.rate).quantize(Decimal("0.1"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A seed against the book. `kept` are prices that a person has set otherwise."""

    added: tuple[Difference, ...]
    changed: tuple[Difference, ...]
    removed: tuple[Difference, ...]
    kept: tuple[Difference, ...]
    unchanged: int


def place(known: Iterable[Price], valid_from: datetime) -> Placement:
    """Where a price that begins at `valid_from` goes among the rows of its own key.

    The row that is valid then ends there, one that would begin in the same moment is withdrawn (it ends where it begins), and
    a later one stays: the new price ends where it begins.
    """
    ends: list[tuple[int, datetime]] = []
    later: list[datetime] = []
    for price in known:
        if price.valid_to is not None and (price.valid_to <= price.valid_from or price.valid_to <= valid_from):
            continue
        if price.valid_from > valid_from:
            later.append(price.valid_from)
        else:
            assert price.id is not None, "rows of the book have an id"
            ends.append((price.id, valid_from))
    return Placement(tuple(ends), min(later, default=None))


def fingerprint(price: Price) -> str:
    """The source hash of a row that has no file behind it."""
    text = "|".join(map(str, (*price.key, price.rate, price.valid_from.isoformat())))
    return hashlib.sha256(text.encode()).hexdigest()


def compare(book: Mapping[Key, Price], seed: Sequence[Price]) -> Comparison:
    """What the seed would add, change and remove; `book` has the provider prices that are valid now."""
    added, changed, kept = [], [], []
    unchanged = 0
    for new in seed:
        old = book.get(new.key)
        if old is None:
            added.append(Difference(None, new))
        elif old.rate == new.rate:
            unchanged += 1
        elif old.source.startswith(BY_HAND):
            kept.append(Difference(old, new))
        else:
            changed.append(Difference(old, dataclasses.replace(new, id=None)))
    names = {new.key for new in seed}
    removed = [
        Difference(old, None) for key, old in book.items() if key not in names and not old.source.startswith(BY_HAND)
    ]
    return Comparison(tuple(added), tuple(changed), tuple(removed), tuple(kept), unchanged)
