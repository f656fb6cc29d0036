"""Averages that forget: what was seen a half-life ago counts half."""

from __future__ import annotations

FORGOTTEN = 0.05
"""Averages of less weight are not believed any more, so that a slow deployment is measured again some day: with a half-life of
five minutes one call is forgotten after 22 minutes, a hundred after 55."""
ALIKE_TOKENS = 500.0
"""Prompts whose lengths differ by less say little about how fast is read: as much as what is assumed."""


class Average:
    """A mean of what was seen lately; `weight` says how much that is."""

    __slots__ = ("_half_life", "_since", "_sum", "weight")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._since = 0.0
        self._sum = 0.0
        self.weight = 0.0

    def add(self, value: float, now: float) -> None:
        """Take in one value."""
        self.fade(now)
        self._sum += value
        self.weight += 1.0

    def fade(self, now: float) -> None:
        """Let what was seen before count less."""
        kept = 0.5 ** (max(0.0, now - self._since) / self._half_life)
        self._sum *= kept
        self.weight *= kept
        self._since = now

    @property
    def mean(self) -> float | None:
        """The mean, None when too little is known."""
        return self._sum / self.weight if self.weight >= FORGOTTEN else None


class FirstTokens:
    """Seconds to the first token and the input tokens that were read until then (without cached ones): a line through both."""

    __slots__ = ("_half_life", "_product", "_read", "_seconds", "_since", "_spread", "weight")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._since = 0.0
        # Weighted means, and sums of squares and products of the differences from them (Welford), which lose no digits.
        self._read = self._seconds = self._spread = self._product = 0.0
        self.weight = 0.0

    def add(self, read: int, seconds: float, now: float) -> None:
        """Take in one first token."""
        self.fade(now)
        self.weight += 1.0
        difference = read - self._read
        self._read += difference / self.weight
        self._seconds += (seconds - self._seconds) / self.weight
        self._spread += difference * (read - self._read)
        self._product += difference * (seconds - self._seconds)

    def fade(self, now: float) -> None:
        """Let what was seen before count less."""
        kept = 0.5 ** (max(0.0, now - self._since) / self._half_life)
        self.weight *= kept
        self._spread *= kept
        self._product *= kept
        self._since = now

    @property
    def mean(self) -> float | None:
        """Seconds, None when too little is known."""
        return self._seconds if self.weight >= FORGOTTEN else None

    @property
    def read(self) -> float | None:
        """Tokens that were read, on average; None when too little is known."""
        return self._read if self.weight >= FORGOTTEN else None

    def slope(self, assumed: float) -> float:
        """Seconds per token: the least squares, drawn to `assumed` as far as prompts were alike. Never below zero, and never so
        much that a prompt of no tokens would take less than none.
        """
        prior = ALIKE_TOKENS * ALIKE_TOKENS
        slope = max((self._product + prior * assumed) / (self._spread + prior), 0.0)
        return min(slope, self._seconds / self._read) if self._read > 0.0 else slope
