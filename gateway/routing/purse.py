"""How much of hard budgets was left when this process last took from them: with little left, prices count more.

Every hold is answered with what the counter stands at, so the store is not asked for this. A counter's name says its period: a
new month is a new counter, of which nothing is known until the first hold, and then everything is taken to be left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

MOST_COUNTERS = 50_000


class Purses:
    """Shares left, 0..1, by counter; those that were used least recently are forgotten first."""

    def __init__(self, most: int = MOST_COUNTERS) -> None:
        self._most = most
        self._left: OrderedDict[str, float] = OrderedDict()

    def note(self, counter: str, used: int, limit: int) -> None:
        """A counter stood at `used` of `limit` after a hold."""
        self._left[counter] = max(0.0, 1.0 - used / limit) if limit > 0 else 0.0
        self._left.move_to_end(counter)
        if len(self._left) > self._most:
            self._left.popitem(last=False)

    def left(self, counters: Iterable[str]) -> float:
        """The least share that is left of any of them."""
        return min((self._left.get(counter, 1.0) for counter in counters), default=1.0)


def saving(left: float, below: float | None) -> float:
    """How much quality counts when `left` of a budget is left: as always above `below`, not at all at the end."""
    return 1.0 if below is None or left >= below else left / below
