"""The price book as a gateway uses it: resolved for its own models, renewed every few seconds, exact to the moment of a change.

A database that is down leaves the known rows in force, scheduled ones included. A model that the book does not price is a
ConfigError at the start; should its price end later, the model answers no more until it has one again.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from gateway.billing.prices.choose import EVERYWHERE, Price, marked_up, next_change, resolve
from gateway.billing.prices.queries import model_names, prices_of
from gateway.catalog import BookEntry, Catalog, Model
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.errors import ConfigError
from gateway.types import UNPRICED_SHEET, PriceSheet

logger = logging.getLogger(__name__)

Rows = dict[tuple[str, str, str], list[Price]]
"""Rows by book, owner and model."""

REFRESH_SECONDS = 2.0
"""How long a change that begins at once may take to arrive. One that was made before begins in its moment."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Every price at one moment, by the models' index. A request keeps the one it began with."""

    costs: tuple[PriceSheet | None, ...]
    charges: dict[str, tuple[PriceSheet | None, ...]]

    def cost(self, model: Model) -> PriceSheet:
        """What the provider asks. A model without a price is asked only where the policy holds a maximum instead."""
        return self.costs[model.index] or UNPRICED_SHEET

    def charge(self, tenant: str, model: Model) -> PriceSheet:
        """What a tenant pays; a tenant that the configuration does not know pays as `default`."""
        return (self.charges.get(tenant) or self.charges["default"])[model.index] or UNPRICED_SHEET


class PriceBook:
    """Prices of the catalog's models: those of the configuration, and those of the book where it says `price: book`."""

    def __init__(self, catalog: Catalog, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._database = database
        self._clock = clock
        self._rows: list[Price] = []
        self._changes_at = float("inf")
        self._prices = Prices((), {})
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read the book and resolve every model. Raises ConfigError for models without a price, Unavailable.

        Where some policy holds a maximum for models without a price, they are a warning.
        """
        self.renew()
        unpriced = self.unpriced()
        if unpriced and any(policy.unpriced == "hold" for policy in self._catalog.policies.values()):
            for message in unpriced:
                logger.warning("%s", message)
        elif unpriced:
            raise ConfigError("\n".join(unpriced))

    def unpriced(self) -> list[str]:
        """One sentence for every model without a price now: why, and what to do about it. Call `renew` before."""
        return [
            self._unpriced(model, model.book)
            for model, cost in zip(self._catalog.models, self._prices.costs, strict=True)
            if model.book is not None and cost is None
        ]

    def renew(self) -> None:
        """Read the book and resolve what it prices. Raises Unavailable."""
        self._read()
        self._resolve()

    async def open(self) -> None:
        """Load, and keep the prices fresh."""
        await asyncio.to_thread(self.load)
        self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Read the book again."""
        before = self._rows
        await asyncio.to_thread(self._read)
        if self._rows != before:
            self._resolve()

    def current(self) -> Prices:
        """The prices of this moment."""
        if self._clock() >= self._changes_at:
            self._resolve()
        return self._prices

    def _read(self) -> None:
        names = {model.book.model for model in self._catalog.models if model.book is not None}
        names |= {model.name for model in self._catalog.models}
        rows = prices_of(self._database, names, moment(self._clock()))
        self._rows = sorted(rows, key=lambda row: row.id or 0)

    def _resolve(self) -> None:
        """Make the prices of now out of the rows, and note when they change next."""
        at = moment(self._clock())
        rows: Rows = defaultdict(list)
        for row in self._rows:
            rows[row.book, row.owner, row.model].append(row)
        costs = tuple(self._cost(model, rows, at) for model in self._catalog.models)
        # Tenants are many and markups few.
        tenants = self._catalog.tenants.values()
        marked = {
            percent: tuple(marked_up(cost, percent) if cost is not None else None for cost in costs)
            for percent in {tenant.markup_percent for tenant in tenants}
        }
        fixed = {owner for book, owner, _ in rows if book == "tenant"}
        charges = {tenant.name: marked[tenant.markup_percent] for tenant in tenants}
        for name in fixed & charges.keys():
            charges[name] = self._fixed(name, charges[name], rows, at)
        for model, before, cost in zip(self._catalog.models, self._prices.costs, costs, strict=False):
            if before is not None and cost is None:
                logger.error("model %r has no price in the price book any more and will not be asked", model.name)
        self._prices = Prices(costs, charges)
        change = next_change(self._rows, at)
        self._changes_at = change.timestamp() if change is not None else float("inf")

    def _cost(self, model: Model, rows: Rows, at: datetime) -> PriceSheet | None:
        if model.book is None:
            assert model.price is not None, "a model has its prices or an entry of the book"
            return PriceSheet.flat(model.price)
        owner = self._owner(model.book)
        if owner is None:
            return None
        return resolve(rows.get(("provider", owner, model.book.model), ()), at, model.book.region)

    def _fixed(
        self, tenant: str, marked: tuple[PriceSheet | None, ...], rows: Rows, at: datetime
    ) -> tuple[PriceSheet | None, ...]:
        """What a tenant with fixed prices pays: those where it has them, else the cost with its markup."""
        sheets = list(marked)
        for model in self._catalog.models:
            region = model.book.region if model.book is not None else EVERYWHERE
            fixed = resolve(rows.get(("tenant", tenant, model.name), ()), at, region)
            sheets[model.index] = fixed or sheets[model.index]
        return tuple(sheets)

    def _owner(self, entry: BookEntry) -> str | None:
        """Whose prices count: the provider that is named, else the only one that sells the model."""
        owners = self._owners(entry.model)
        if entry.provider is not None:
            return entry.provider
        return owners[0] if len(owners) == 1 else None

    def _owners(self, name: str) -> list[str]:
        return sorted({row.owner for row in self._rows if row.book == "provider" and row.model == name})

    def _unpriced(self, model: Model, entry: BookEntry) -> str:
        """Why a model has no price, and what to do about it."""
        owners = self._owners(entry.model)
        said = f"model {model.name!r} has `price: book`"
        if entry.provider is None and len(owners) > 1:
            return (
                f"{said}, and the price book has prices of {entry.model!r} by {', '.join(owners)}: "
                f"name one with `book: {{provider: {owners[0]}}}`."
            )
        if entry.provider is not None and owners and entry.provider not in owners:
            return f"{said}, and the price book has {entry.model!r} by {', '.join(owners)}, not by {entry.provider!r}."
        if owners:
            return (
                f"{said}, and the price book lacks a price of {entry.model!r} for input or output that is valid now. "
                f"Add it with `penstock prices set {entry.model} --meter METER --usd-per-million X`."
            )
        known = model_names(self._database)
        near = sorted((name for name in known if name.endswith(f"/{entry.model}")), key=len)[:3]
        near = near or difflib.get_close_matches(entry.model, known, n=3, cutoff=0.8)
        hint = f" Near: {', '.join(map(repr, near))}; name one with `book: {{model: ...}}`." if near else ""
        return (
            f"{said}, and the price book has no price of {entry.model!r} that is valid now.{hint} "
            "`penstock prices sync --apply` fills the book, `penstock prices set` adds one price."
        )

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Exception as error:  # the known prices stay in force; the next round tries again
                logger.warning("prices could not be refreshed: %s", type(error).__name__)
