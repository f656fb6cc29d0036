"""How large a share of a key's `auto` requests has lately gone up: answered by the upper tiers, or sent to the best for being
unfamiliar. Wording alone can bring about both, and this bounds what that costs.

The counts are this process's own: a share that holds in every process holds for all of them together, other than a sum, so
nothing has to be asked of the store. What is older than the window fades. The first request may go up whatever the share, as
otherwise a key that seldom asks never could; the next one waits until both are within the share.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from math import exp

MOST_KEYS = 50_000
FORGOTTEN = 0.05
"""What went up and has faded to this, which takes three windows, does not keep the next one back."""
UNFAMILIAR_FREE = 20
"""So many requests of a key in a window say nothing yet about what share of its prompts is unfamiliar."""


class Shares:
    """Requests by key, and those that went up, fading; the keys that were used least recently are forgotten first.

    The first `free` requests may go up whatever the share, which is looked at from then on; they are counted as well.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_KEYS, free: int = 0) -> None:
        self._clock = clock
        self._most = most
        self._free = free
        self._counts: OrderedDict[str, tuple[float, float, float]] = OrderedDict()

    def spent(self, key_id: str, share: float | None, window: float) -> bool:
        """Whether one more that goes up would exceed the share."""
        if share is None or share >= 1.0:
            return False
        requests, up = self._faded(key_id, window)
        if share > 0.0 and (up <= FORGOTTEN or requests + 1.0 <= self._free):
            return False
        return up + 1.0 > share * (requests + 1.0) + 1e-9

    def note(self, key_id: str, up: bool, window: float) -> None:
        """There was an `auto` request of the key, and it went up or not."""
        requests, before = self._faded(key_id, window)
        self._counts[key_id] = (requests + 1.0, before + up, self._clock())
        self._counts.move_to_end(key_id)
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)

    def _faded(self, key_id: str, window: float) -> tuple[float, float]:
        requests, up, since = self._counts.get(key_id, (0.0, 0.0, 0.0))
        kept = exp(-max(0.0, self._clock() - since) / window)
        return requests * kept, up * kept
