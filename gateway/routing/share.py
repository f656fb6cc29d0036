"""How large a share of a key's `auto` requests the upper tiers have answered lately; wording alone can move the score, and this
bounds what that costs.

The counts are this process's own: a share that holds in every process holds for all of them together, other than a sum, so
nothing has to be asked of the store. What is older than the window fades. The first request may go up whatever the share, as
otherwise a key that seldom asks never could; the next one waits until both are within the share.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from math import exp

from gateway.routing.conditions import UPPER_TIERS

MOST_KEYS = 50_000
FORGOTTEN = 0.05
"""Upper answers that have faded to this, which takes three windows, do not keep the next one back."""


class Shares:
    """Requests and upper answers by key, fading; the keys that were used least recently are forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_KEYS) -> None:
        self._clock = clock
        self._most = most
        self._counts: OrderedDict[str, tuple[float, float, float]] = OrderedDict()

    def spent(self, key_id: str, share: float | None, window: float) -> bool:
        """Whether one more upper answer would exceed the share."""
        if share is None or share >= 1.0:
            return False
        requests, upper = self._faded(key_id, window)
        if upper <= FORGOTTEN and share > 0.0:
            return False
        return upper + 1.0 > share * (requests + 1.0) + 1e-9

    def note(self, key_id: str, tier: str, window: float) -> None:
        """An `auto` request was answered by this tier."""
        requests, upper = self._faded(key_id, window)
        self._counts[key_id] = (requests + 1.0, upper + (tier in UPPER_TIERS), self._clock())
        self._counts.move_to_end(key_id)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)

    def _faded(self, key_id: str, window: float) -> tuple[float, float]:
        requests, upper, since = self._counts.get(key_id, (0.0, 0.0, 0.0))
        kept = exp(-max(0.0, self._clock() - since) / window)
        return requests * kept, upper * kept
