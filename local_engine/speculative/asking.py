"""Whether a drafter that takes time is worth asking, learned from what asking it brought and took."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIRST_NET = 0.05  # plain steps: worth some tries
_RATE = 0.05  # how fast it is learned what asking brings
_OUTLIER = 1.5  # drafting that takes longer than so many times the usual counts as if it had taken that
_FIRST_COST = 0.5  # plain steps that the first draft may count for: it is often slow
_QUICKER_RATE, _SLOWER_RATE = (
    0.5,
    0.05,
)  # how fast a usual time is learned: neighbours make drafting slower, never quicker
_FIRST_PAUSE, _LAST_PAUSE = 16, 128


@dataclass(slots=True)
class Probes:
    """Tries while something does not pay, or nobody would notice that it pays again: ever rarer, up to a bound."""

    until: int = 0
    pause: int = _FIRST_PAUSE

    def due(self) -> bool:
        """Whether to try this time."""
        self.until -= 1
        if self.until > 0:
            return False
        self.until = self.pause
        self.pause = min(2 * self.pause, _LAST_PAUSE)
        return True

    def restart(self) -> None:
        """It pays."""
        self.until = self.pause = _FIRST_PAUSE


@dataclass(slots=True)
class Asking:
    """Times are shares of a plain step, so that a machine whose speed wanders changes nothing."""

    net: float = _FIRST_NET  # plain steps that asking saves
    per_token: float | None = None  # of the longest draft; None before the first
    probes: Probes = field(default_factory=Probes)

    @property
    def pays(self) -> bool:
        """Whether asking saves more than it takes."""
        return self.net > 0

    def observe(self, gain: float, depth: int, cost: float) -> float:
        """Drafts of up to `depth` tokens save `gain` and took `cost`; returns what of that is usual."""
        depth = max(1, depth)
        if self.per_token is None:
            cost = min(cost, _FIRST_COST)
            self.per_token = cost / depth
        usual = min(cost / depth, _OUTLIER * self.per_token)
        self.per_token += (_QUICKER_RATE if usual < self.per_token else _SLOWER_RATE) * (usual - self.per_token)
        self.net += _RATE * (gain - depth * usual - self.net)
        if self.pays:
            self.probes.restart()
        return depth * usual
