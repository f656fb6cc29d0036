"""What quality must be worth so that policies keep what they promise: tables, made beside the requests and looked up by them.

A table belongs to an artifact (whose calibration sample it is tested on), a confidence and a set of tiers, at the prices of
now. One that is asked for and not there yet is made at once, in a thread; until then, and where the artifact has no sample or
one with too few labels for these tiers, each prompt keeps its floor by itself, which is the stricter rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from gateway.catalog import Catalog, Model
from gateway.routing.ask import READS_PER_WRITE, TOKENS_PER_SECOND, PromiseTable
from gateway.types import PriceSheet

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
"""How long a change of prices may take to arrive in the tables."""
MOST_TABLES = 200
THOUGHTS = {"economy": 1.35, "standard": 1.3, "premium": 0.93}
"""Reasoning tokens per token of the answer, as the bundled artifact expects them of its everyday prompts on average. Both grow
alike (their logarithms correlate by .8 to .97), so a sample of answers' lengths can price a model that reasons."""
TYPICAL_INPUT, TYPICAL_OUTPUT = 500, 300
"""Tokens of the request by which the cheapest deployment of a tier is found."""
PER_TOKEN = 1_000_000

TierPrices = tuple[tuple[str, float, float], ...]
"""Tier, pico-USD per input token, per output token."""
Costs = Callable[[], Sequence[PriceSheet | None]]
Make = Callable[[str, TierPrices, float], PromiseTable | None]
"""A table for an artifact's version, prices and a confidence; None where its sample can promise nothing. Raises NotLoaded."""


class NotLoaded(LookupError):
    """The artifact is not in memory, not yet or not any more: nothing is known of what it promises."""


class Wanted(NamedTuple):
    """What a table is for. `tiers` are those of the configuration that may answer."""

    artifact: str
    confidence: float
    tiers: frozenset[str]


class Promises:
    """The tables of one process."""

    def __init__(self, catalog: Catalog, costs: Costs, make: Make) -> None:
        self._catalog = catalog
        self._all = catalog.tiers
        self._costs = costs
        self._make = make
        self._tables: dict[Wanted, PromiseTable | None] = {}
        self._missing: set[Wanted] = set()
        self._made_for: Sequence[PriceSheet | None] | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, artifact: str, confidences: Iterable[float]) -> None:
        """Make the tables that will surely be asked for, and keep them right."""
        await asyncio.to_thread(self.prepare, artifact, confidences)
        self._task = asyncio.create_task(self._keep_right())

    def prepare(self, artifact: str, confidences: Iterable[float]) -> None:
        """Make the tables of callers who may use all tiers."""
        self._missing |= {Wanted(artifact, confidence, self._all) for confidence in confidences}
        self.renew()

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def worth(self, artifact: str, confidence: float, floor: float, tiers: frozenset[str] | None) -> float | None:
        """Pico-USD per unit of quality that keeps `floor` among these tiers (None: all); None while it is not known."""
        wanted = Wanted(artifact, confidence, self._all if tiers is None else tiers & self._all)
        table = self._tables.get(wanted)
        if table is not None:
            return table.worth_for(floor)
        if wanted not in self._tables:
            self._missing.add(wanted)
            self._wake.set()
        return None

    def renew(self) -> None:
        """Make what is missing; everything again when prices are others. Those of artifacts that are not loaded go."""
        costs = self._costs()
        missing = set(self._missing)
        if costs is not self._made_for:
            missing |= set(self._tables)
        if len(self._tables) + len(missing) > MOST_TABLES:
            self._tables, missing = {}, set(self._missing)
        made: dict[Wanted, PromiseTable | None] = {}
        gone: set[Wanted] = set()
        for wanted in missing:
            try:
                made[wanted] = self._table(wanted, costs)
            except NotLoaded:  # not kept as "has none": whoever scores with it asks again
                gone.add(wanted)
        self._tables = {wanted: table for wanted, table in {**self._tables, **made}.items() if wanted not in gone}
        self._missing -= missing
        self._made_for = costs

    def _table(self, wanted: Wanted, costs: Sequence[PriceSheet | None]) -> PromiseTable | None:
        prices = tier_prices(self._catalog.models, costs, wanted.tiers)
        if not prices:
            return None
        try:
            return self._make(wanted.artifact, prices, wanted.confidence)
        except NotLoaded:
            raise
        except Exception as error:  # requests keep the stricter rule; a table is never worth an outage
            logger.warning("no promise can be made with artifact %s: %s", wanted.artifact, error)
            return None

    async def _keep_right(self) -> None:
        while True:
            # Not wait_for: before Python 3.12 it may swallow the cancellation that ends this task.
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._missing or self._costs() is not self._made_for:
                    await asyncio.to_thread(self.renew)
            except Exception as error:  # the known tables stay; the next round tries again
                logger.warning("promises could not be renewed: %s", type(error).__name__)


def tier_prices(models: Iterable[Model], costs: Sequence[PriceSheet | None], tiers: frozenset[str]) -> TierPrices:
    """What the cheapest deployment of each of the trained model's tiers asks; a deep model counts as premium.

    The price of a token of the answer includes what a model that reasons has thought for it.
    """
    cheapest: dict[str, tuple[float, float, float]] = {}
    for model in models:
        sheet = costs[model.index]
        if sheet is None or model.tier not in tiers:
            continue
        rates = sheet.plain.rates
        tier = "premium" if model.tier == "deep" else model.tier
        # Engine time is priced per second.
        written = rates["gpu_seconds"] / TOKENS_PER_SECOND
        into = rates["input"] / PER_TOKEN + written / READS_PER_WRITE
        out = rates["output"] / PER_TOKEN + written
        if model.reasoning:
            out += THOUGHTS[tier] * (rates["reasoning"] / PER_TOKEN + written)
        typical = TYPICAL_INPUT * into + TYPICAL_OUTPUT * out
        if tier not in cheapest or typical < cheapest[tier][0]:
            cheapest[tier] = (typical, into, out)
    return tuple((tier, into, out) for tier, (_, into, out) in cheapest.items())
