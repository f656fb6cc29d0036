"""What computing an answer took, where the engine that computed it says so. Unknown is None and never zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MICRO = 1_000_000
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Energy:
    """Microjoules, nanograms of CO2 equivalent (None when nobody said), and whether any of it is an estimate."""

    microjoules: int
    co2e_nanograms: int | None = None
    estimated: bool = True

    @property
    def joules_text(self) -> str:
        """Exact decimal joules."""
        return f"{self.microjoules // MICRO}.{self.microjoules % MICRO:06}"

    @property
    def grams_text(self) -> str | None:
        """Exact decimal grams of CO2 equivalent."""
        grams = self.co2e_nanograms
        return f"{grams // NANO}.{grams % NANO:09}" if grams is not None else None


def add_up(parts: Iterable[Energy | None]) -> Energy | None:
    """The sum of what is known; None when nothing is. The sum is an estimate as soon as a part is."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    grams = [part.co2e_nanograms for part in known if part.co2e_nanograms is not None]
    return Energy(
        sum(part.microjoules for part in known), sum(grams) if grams else None, any(part.estimated for part in known)
    )
