"""What a step takes by its size, learned while answering on a machine whose speed wanders."""

from __future__ import annotations

_SPEED_RATE = 0.2  # how fast the machine's common speed is learned: neighbours come and go
_COST_RATE = 0.05  # a size is told from the others more slowly: most of what one step shows is the machine's speed
_FIRST_COST_RATE = 0.5  # but at first, divided by how often it was measured
_STARTING = 8  # steps among which a quicker one than expected is believed at once: the first ones are often slow
_OUTLIER = 1.5  # a step that takes longer than so many times the expected is counted as if it had taken that
_UNKNOWN = 0.25  # of the way from the least to the most that a size outside the measured ones can cost: worth a try
_LEAST = 1e-9  # seconds; a clock may stand still
_LEAP, _LATER_LEAP = 1.25, 2.0  # times the largest size measured, and one more
_YOUNG = 128  # steps


class StepCosts:
    """Seconds by size (rows of a step): a common speed, and what each size costs relative to it.

    A size first seen costs what its neighbours allow, or per row at most what the only neighbour costs: a slow step is
    not believed against them. Large sizes are told apart only to an eighth of their order of magnitude.
    """

    def __init__(self) -> None:
        self._speed = 0.0
        self._relative: dict[int, float] = {}
        self._measured: dict[int, int] = {}  # how often
        self._steps = 0

    def observe(self, size: int, seconds: float) -> None:
        """A step of `size` took so long."""
        size, seconds = _coarse(size), max(seconds, _LEAST)
        self._steps += 1
        self._measured[size] = self._measured.get(size, 0) + 1
        known = self._relative.get(size)
        if not self._relative:
            self._speed = seconds
            self._relative[size] = 1.0
        elif known is None:
            least, most, _ = self._bounds(size)
            self._relative[size] = min(most, max(least, seconds / self._speed))
        elif self._steps <= _STARTING and seconds < self._speed * known:
            self._speed = seconds / known
        else:
            ratio = min(_OUTLIER, max(1 / _OUTLIER, seconds / (self._speed * known)))
            self._speed *= ratio**_SPEED_RATE
            self._relative[size] = known * ratio ** max(_COST_RATE, _FIRST_COST_RATE / self._measured[size])

    def times(self, size: int) -> int:
        """How often this very size was measured."""
        return self._measured.get(_coarse(size), 0)

    @property
    def farthest(self) -> int:
        """The largest size to be planned: beyond the largest measured only a little at first, and later up to twice it."""
        leap = _LEAP if self._steps < _YOUNG else _LATER_LEAP
        return 1 + int(leap * max(self._relative, default=0))

    def expect(self, size: int) -> float:
        """Seconds for a step of `size`; between measured sizes by a line, outside them nearer to the least; 0 before any."""
        size = _coarse(size)
        known = self._relative.get(size)
        if known is None:
            if not self._relative:
                return 0.0
            least, most, share = self._bounds(size)
            known = least + share * (most - least)
        return self._speed * known

    def _bounds(self, size: int) -> tuple[float, float, float]:
        """(least and most relative cost of a size not measured, where between them it is expected).

        It lies between its neighbours; where one is missing, a row costs at most what it costs on average next to it.
        """
        below = max((each for each in self._relative if each < size), default=None)
        above = min((each for each in self._relative if each > size), default=None)
        if below is not None and above is not None:
            return self._relative[below], self._relative[above], (size - below) / (above - below)
        if below is not None:
            return self._relative[below], self._relative[below] * size / below, _UNKNOWN
        assert above is not None
        return self._relative[above] * size / above, self._relative[above], _UNKNOWN


def _coarse(size: int) -> int:
    grain = max(0, size.bit_length() - 5)
    return size >> grain << grain
