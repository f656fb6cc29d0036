"""Everything a request needs, built once at the start and passed by hand. The only importer of router_models."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.billing.budgets import restore_budgets
from gateway.billing.prices.book import PriceBook
from gateway.catalog import Catalog
from gateway.db.connect import Database, connect
from gateway.errors import StartupError, Unavailable
from gateway.keys.authenticate import KeyRing
from gateway.metering.spool import Spool
from gateway.providers.registry import Providers, build_providers
from gateway.routing.ask import Scorer
from gateway.settings import Settings
from gateway.store.base import Claim, Store
from gateway.store.open import open_store
from gateway.telemetry.metrics import Metrics
from router_models.errors import ArtifactError
from router_models.router import Router

logger = logging.getLogger(__name__)
CORRECTION_SECONDS = 1.0
DATABASE_SECONDS = 5
"""A request waits for the database only when its key is new, and then not long."""
MAX_CORRECTIONS = 100_000


@dataclass(slots=True)
class Corrections:
    """Holds that could not be corrected because the store did not answer; tried again until it does."""

    store: Store
    metrics: Metrics
    waiting: list[tuple[str, list[tuple[Claim, int]]]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def apply(self, request_id: str, changes: list[tuple[Claim, int]]) -> None:
        """Correct the counters, now or as soon as the store is back. The ledger does not depend on it.

        The request's id makes the correction count once, should a first try have arrived without an answer.
        """
        try:
            await self.store.adjust(changes, once=request_id)
        except Unavailable:
            if len(self.waiting) < MAX_CORRECTIONS:
                self.waiting.append((request_id, changes))
            self.metrics.set("penstock_uncorrected_holds", len(self.waiting))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        while self.waiting:
            await asyncio.sleep(CORRECTION_SECONDS)
            request_id, changes = self.waiting[0]
            try:
                await self.store.adjust(changes, once=request_id)
            except Unavailable:
                continue
            self.waiting.pop(0)
            self.metrics.set("penstock_uncorrected_holds", len(self.waiting))

    async def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one gateway process."""

    settings: Settings
    catalog: Catalog
    database: Database
    store: Store
    spool: Spool
    corrections: Corrections
    keys: KeyRing
    prices: PriceBook
    providers: Providers
    scorer: Scorer
    metrics: Metrics


def database_url(settings: Settings, catalog: Catalog) -> str:
    """DATABASE_URL, else the configuration's, else SQLite in the data folder."""
    return settings.database_url or catalog.database or f"sqlite:///{settings.data_dir / 'penstock.db'}"


async def open_services(settings: Settings, catalog: Catalog, engine_url: str | None) -> Services:
    """Build and start every part. Raises StartupError or ConfigError that says what to do."""
    try:
        scorer = Router.load()
    except ArtifactError as error:
        raise StartupError(f"The router's trained artifact cannot be used: {error}") from error
    metrics = Metrics()
    database = connect(database_url(settings, catalog), deadline_seconds=DATABASE_SECONDS)
    store = open_store(settings.redis_url or catalog.redis)
    spool = Spool.open(settings.data_dir / "spool")
    keys = KeyRing(catalog, database)
    await keys.open()
    prices = PriceBook(catalog, database)
    await prices.open()
    await restore_budgets(store, database, keys.budgets(), time.time())
    providers = build_providers(catalog, engine_url)
    await providers.open()
    for warning in catalog.warnings:
        logger.warning(warning)
    return Services(
        settings=settings,
        catalog=catalog,
        database=database,
        store=store,
        spool=spool,
        corrections=Corrections(store, metrics),
        keys=keys,
        prices=prices,
        providers=providers,
        scorer=scorer,
        metrics=metrics,
    )


async def close_services(services: Services) -> None:
    """Stop every part; the spool last, as it holds what the others still wrote."""
    closing: Sequence[object] = await asyncio.gather(
        services.keys.close(),
        services.prices.close(),
        services.providers.close(),
        services.corrections.close(),
        services.store.close(),
        return_exceptions=True,
    )
    for problem in closing:
        if isinstance(problem, BaseException):
            logger.warning("a part did not close cleanly: %s", type(problem).__name__)
    services.spool.close()
    services.database.close()
