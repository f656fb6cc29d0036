"""What an artifact promises at the gateway's own prices, by its calibration sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.routing.ask import PromiseTable
from gateway.routing.promises import Make, NotLoaded, TierPrices
from router_models.bounds import WANTED_LABELS
from router_models.floor import PromiseTable as Table
from router_models.floor import TierPrice, promise_table
from router_models.router import Router
from router_models.tiers import TIERS

LEAST_KEPT_SAVING = 0.5
"""Of what an artifact saves: whether one that saves less than that is to follow it is for people to decide."""


def promise_maker(router: Router) -> Make:
    """Makes tables of promises from the calibration sample of this artifact; others have none."""
    return promise_maker_of(lambda version: router if version == router.version else None)


def promise_maker_of(router_of: Callable[[str], Router | None]) -> Make:
    """The same for several artifacts, each with its own sample.

    None for one whose sample has too few prompts that are labelled in all of the tiers: it could only promise the best tier.
    """

    def make(artifact: str, prices: TierPrices, confidence: float) -> PromiseTable | None:
        router = router_of(artifact)
        if router is None:
            raise NotLoaded(artifact)
        return _table(router, prices, confidence)

    return make


@dataclass(frozen=True, slots=True)
class Promised:
    """What two artifacts promise for a floor: the share of the best tier's cost that is saved, None where nothing can be."""

    floor: float
    before: float | None
    after: float | None

    @property
    def lost(self) -> bool:
        """Whether the promise cannot be given any more, or at the price of most of what is saved."""
        return self.before is not None and (self.after is None or self.after < LEAST_KEPT_SAVING * self.before)

    def __str__(self) -> str:
        saved = ["none" if each is None else f"{each:.0%} saved" for each in (self.before, self.after)]
        return f"promise of {self.floor:g} of the best quality: {saved[0]} to {saved[1]}"


def compare_promises(before: Router, after: Router, prices: TierPrices, floor: float, confidence: float) -> Promised:
    """What becomes of a policy's promise when one artifact follows another, each by its own sample."""
    tables = [_table(router, prices, confidence) for router in (before, after)]
    promises = [table.promise_for(floor) if table is not None else None for table in tables]
    saved = [promise.saved if promise is not None and promise.possible else None for promise in promises]
    return Promised(floor, *saved)


def _table(router: Router, prices: TierPrices, confidence: float) -> Table | None:
    sample = router.artifact.sample
    if not len(sample):
        return None
    rates = {tier: (into, out) for tier, into, out in prices}
    asked = {tier: TierPrice(*rates[tier]) for tier in TIERS if tier in rates}
    table = promise_table(sample, asked, confidence=confidence)
    return table if len(asked) == 1 or table.labels >= WANTED_LABELS else None
