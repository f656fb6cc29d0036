"""How long the replies of each model were of late, in this process: what a tenant may hold instead of the worst case."""

from __future__ import annotations

import math
from collections import deque

REMEMBERED = 1_000
"""Replies per model; older ones are forgotten."""
ENOUGH = 100
"""Below so many replies nothing is said about a model."""
FRESH_AFTER = 20
"""Replies after which a share is looked up again: sorting a thousand numbers for every request would cost too much."""


class Outputs:
    """Output tokens per choice (reasoning included) of the last replies of every model."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[int]] = {}
        self._noted: dict[str, int] = {}
        self._known: dict[tuple[str, float], tuple[int, int]] = {}

    def note(self, model: str, tokens: int, choices: int) -> None:
        """Remember one whole reply."""
        self._seen.setdefault(model, deque(maxlen=REMEMBERED)).append(math.ceil(tokens / max(1, choices)))
        self._noted[model] = self._noted.get(model, 0) + 1

    def within(self, model: str, share: float) -> int | None:
        """The tokens that this share (0 to 1) of the replies stayed within; None while too few are known."""
        noted = self._noted.get(model, 0)
        if noted < ENOUGH:
            return None
        at, tokens = self._known.get((model, share), (0, 0))
        if not at or noted - at >= FRESH_AFTER:
            ordered = sorted(self._seen[model])
            tokens = ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
            self._known[model, share] = (noted, tokens)
        return tokens
