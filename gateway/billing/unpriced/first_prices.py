"""The first price that a model had at or after a moment: what was served without one costs that, whoever asks and when."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime

from gateway.billing.prices.book import PriceBook, Prices
from gateway.billing.prices.queries import prices_of
from gateway.catalog import Catalog, Model
from gateway.db.connect import Database
from gateway.db.tables import moment


class FirstPrices:
    """Prices of the past, read from the book as it is now. Later changes of a price do not change which one was first."""

    def __init__(self, catalog: Catalog, database: Database, since: float, now: float) -> None:
        """Raises Unavailable."""
        self._catalog = catalog
        self._database = database
        names = {model.book.model for model in catalog.models if model.book is not None} | set(catalog.groups)
        rows = prices_of(database, names, moment(since))
        ends = {at for row in rows for at in (row.valid_from, row.valid_to) if at is not None}
        self._changes = sorted(at for at in ends if moment(since) < at <= moment(now))
        self._known: dict[int, Prices] = {}

    def of(self, model: Model, started_at: float) -> Prices | None:
        """All prices at the first moment at which this model has one; None when it still has none."""
        first = bisect_right(self._changes, moment(started_at))
        for number in range(first, len(self._changes) + 1):
            at = moment(started_at) if number == first else self._changes[number - 1]
            prices = self._at(number, at)
            if prices.costs[model.index] is not None:
                return prices
        return None

    def _at(self, number: int, at: datetime) -> Prices:
        """Prices between two changes are the same, so each stretch is resolved once."""
        if number not in self._known:
            book = PriceBook(self._catalog, self._database, at.astimezone(UTC).timestamp)
            book.renew()
            self._known[number] = book.current()
        return self._known[number]
