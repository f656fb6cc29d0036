"""Everything a request needs, built once at the start and passed by hand. The only importer of router_models."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

from gateway.abilities import Abilities
from gateway.aside import Aside
from gateway.billing.away import Away
from gateway.billing.budgets import CounterRebuild
from gateway.billing.prices.book import PriceBook
from gateway.catalog import Catalog
from gateway.db.connect import Database, connect
from gateway.errors import StartupError
from gateway.keys.authenticate import KeyRing
from gateway.limits.outputs import Outputs
from gateway.metering.catch_up import wait_until_delivered
from gateway.metering.spool import Spool
from gateway.promising import promise_maker_of
from gateway.providers.registry import Providers, build_providers
from gateway.routing.knowledge import Knowledge, make_knowledge
from gateway.routing.remember import Packer
from gateway.scorers import Scorers, kept_routers
from gateway.settings import Settings
from gateway.store.base import Store
from gateway.store.corrections import Corrections
from gateway.store.open import open_store
from gateway.telemetry.metrics import Metrics
from router_models import kept
from router_models.errors import ArtifactError
from router_models.router import Router

logger = logging.getLogger(__name__)
LOOK_UP_SECONDS = 5
"""A request waits for the database only when its key is new, and then not long."""
SUM_SECONDS = 30
"""How long the sum of a counter may take; a request does not wait that long, the next one finds it done."""
CATCH_UP_SECONDS = 3.0
"""How long delivery may stand still before a sum that needs it is given up."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one gateway process."""

    settings: Settings
    catalog: Catalog
    database: Database
    store: Store
    spool: Spool
    corrections: Corrections
    rebuild: CounterRebuild
    away: Away
    outputs: Outputs
    keys: KeyRing
    prices: PriceBook
    providers: Providers
    scorers: Scorers
    packer: Packer
    metrics: Metrics
    routing: Knowledge
    look_ups: Database
    """For what a request waits for: it gives up soon."""
    aside: Aside


async def open_services(settings: Settings, catalog: Catalog, engine_url: str | None) -> Services:
    """Build and start every part. Raises StartupError or ConfigError that says what to do."""
    try:
        bundled = Router.load()
    except ArtifactError as error:
        raise StartupError(f"The router's trained artifact cannot be used: {error}") from error
    metrics = Metrics()
    url = settings.database(catalog.database)
    database = connect(url)
    store = open_store(settings.redis_url or catalog.redis)
    spool = Spool.open(settings.spool)
    keys = KeyRing(catalog, connect(url, deadline_seconds=LOOK_UP_SECONDS))
    await keys.open()
    prices = PriceBook(catalog, database)
    await prices.open()
    scorers = Scorers(bundled, database, catalog.policies, metrics.set)
    abilities = Abilities(catalog, bundled, partial(kept_routers, database))
    make = promise_maker_of(scorers.router)
    routing = make_knowledge(catalog, database, lambda: prices.current().costs, make, abilities.of)
    await routing.open(bundled.version)
    scorers.before_use(abilities.learn)
    await scorers.open()
    # Counters are rebuilt from SQL, which must not lag behind what a worker before this one has spent.
    await asyncio.to_thread(wait_until_delivered, settings.spool, database)
    providers = build_providers(catalog, engine_url)
    await providers.open()
    for warning in catalog.warnings:
        logger.warning(warning)
    rebuild = _rebuild(settings, store, connect(url, deadline_seconds=SUM_SECONDS))
    return Services(
        settings=settings,
        catalog=catalog,
        database=database,
        store=store,
        spool=spool,
        corrections=Corrections(store, partial(metrics.set, "penstock_uncorrected_holds")),
        rebuild=rebuild,
        away=Away(store, rebuild, partial(metrics.add, "penstock_held_without_store_total")),
        outputs=Outputs(),
        keys=keys,
        prices=prices,
        providers=providers,
        scorers=scorers,
        packer=kept.Packer(),
        metrics=metrics,
        routing=routing,
        look_ups=connect(url, deadline_seconds=LOOK_UP_SECONDS),
        aside=Aside(),
    )


def _rebuild(settings: Settings, store: Store, database: Database) -> CounterRebuild:
    delivered = partial(wait_until_delivered, settings.spool, database, CATCH_UP_SECONDS)
    return CounterRebuild(store, database, delivered=delivered)


async def close_services(services: Services) -> None:
    """Stop every part; the spool last, as it holds what the others still wrote."""
    # Each before what it still needs to bring counters up to date.
    counting = (services.away, services.rebuild, services.corrections, services.store)
    routing = (services.scorers, services.routing)
    for part in (services.aside, services.keys, *routing, services.prices, services.providers, *counting):
        try:
            await part.close()
        except Exception as error:
            logger.warning("%s did not close cleanly: %s", type(part).__name__, type(error).__name__)
    services.spool.close()
    services.look_ups.close()
    services.database.close()
