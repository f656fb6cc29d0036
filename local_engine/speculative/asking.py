"""Whether a drafter that takes time is worth asking, learned from what asking it brought and took."""

from __future__ import annotations

from dataclasses import dataclass, field

_FIRST_NET = 0.05  # plain steps: worth some tries
_RATE = 0.05  # how fast it is learned what asking brings and takes; what it brings, the faster the more requests tell,
_MOST_RATE = 0.25  # up to this
_STARTING, _STARTING_RATE = 8, 0.5  # a quicker draft is believed at once among so many: the first ones are often slow
_OUTLIER = 2.0  # drafting that takes longer than so many times the usual counts as if it had taken that
_FIRST_COST = 0.5  # plain steps that the first draft may count for
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
    cost: float = _FIRST_COST  # plain steps that it takes
    depth: float = 1.0  # tokens of the longest draft
    asked: int = 0
    probes: Probes = field(default_factory=Probes)

    @property
    def pays(self) -> bool:
        """Whether asking saves more than it takes."""
        return self.net > 0

    @property
    def per_token(self) -> float:
        """Plain steps that a further token takes, for all drafts together."""
        return self.cost / self.depth

    def observe(self, gain: float, depth: int, cost: float, requests: int = 1) -> float:
        """Drafts of up to `depth` tokens for so many requests save `gain` and took `cost`; returns what of that is usual.

        No drafts at all say nothing of what they are worth: a drafter may be catching up with a long prompt.
        """
        if not depth:
            return 0.0
        self.asked += 1
        usual = min(cost, _FIRST_COST if self.asked == 1 else _OUTLIER * self.cost)
        quick = self.asked == 1 or (usual < self.cost and self.asked <= _STARTING)
        self.cost += (_STARTING_RATE if quick else _RATE) * (usual - self.cost)
        self.depth += _RATE * (depth - self.depth)
        self.net += min(_MOST_RATE, _RATE * requests) * (gain - usual - self.net)
        if self.pays:
            self.probes.restart()
        return usual
