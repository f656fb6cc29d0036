"""Joules of the engine, measured where the machine says and estimated where not, shared out to the requests of each step.

Where a counter cannot be read the next source is taken, and an estimate is marked as one. All amounts are whole microjoules,
so the shares of a step add up to the step and nothing is lost to rounding.

    while steps run: what the counter gained since the last step ──share_out──> the requests of the step
    jobs beside them (embeddings): what it gained in their slice ─────────────> the job
    while idle:      what the counter gained                     ─────────────> idle, billed to nobody
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from local_engine.energy_sources import WORLD_GRAMS_PER_KWH, EnergySource, Source, find_source
from local_engine.scheduler import Chunk

MICRO = 1_000_000
JOULES_PER_KWH = 3_600_000

MOST_ASSUMED = 1.0
"""Seconds for which the last power is assumed to go on; a counter that stands still for longer is believed."""

READ_EVERY = 0.01
"""Seconds between two readings of a counter. Asking a driver takes up to a millisecond, and none is more often right."""

PASS_TOKENS = {"cpu": 32, "cuda": 160}
"""So many tokens cost as much arithmetic as one reading of all weights costs memory traffic: prefill speed over decode speed
of one stream, rounded (CPU: 2,700 over 80 tokens per second; GPU: 790 TFLOP/s over 4.3 TB/s at two bytes per weight)."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Energy so far, microjoules: what requests were billed, and what the engine took while nothing ran."""

    billed: int = 0
    idle: int = 0


def share_out(microjoules: int, parts: Sequence[Chunk], pass_tokens: int) -> list[int]:
    """Whole microjoules for each part, in order; they add up to `microjoules` exactly.

    A step reads all weights once, for every request in it alike, and then computes each token. So a request's part is an
    equal share of `pass_tokens`, and one for each of its tokens: alone it pays for everything, in a full batch it shares
    the reading, and a long prompt beside short answers pays for its own length.
    """
    count = len(parts)
    total = count * (pass_tokens + sum([part.length for part in parts]))
    shares, before, reached = [], 0, 0
    for part in parts:
        reached += pass_tokens + count * part.length
        until = microjoules * reached // total
        shares.append(until - before)
        before = until
    return shares


class EnergyMeter:
    """Follows one source and bills it. Used by the engine's thread alone."""

    def __init__(
        self,
        source: Source | None,
        grams_per_kwh: float = WORLD_GRAMS_PER_KWH,
        pass_tokens: int = PASS_TOKENS["cpu"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.grams_per_kwh = grams_per_kwh
        self.spent = Spent()
        self._pass_tokens = pass_tokens
        self._clock = clock
        self._follower = _Follower(source, clock) if source is not None else None

    @property
    def estimated(self) -> bool:
        """Whether what is billed is an estimate; False without a source as well."""
        return self.source is not None and self.source.estimated

    def bill(self, parts: Sequence[Chunk]) -> None:
        """A step of at least one part has ended: what was spent since the last reading is its requests'."""
        if self._follower is None:
            return
        gained = self._follower.gained(busy=True)
        for part, share in zip(parts, share_out(gained, parts, self._pass_tokens), strict=True):
            part.request.microjoules = (part.request.microjoules or 0) + share
        self.spent = Spent(self.spent.billed + gained, self.spent.idle)

    def bill_slice(self) -> int | None:
        """A slice of work beside the steps has ended: what was spent since the last reading is its own. None if unknown."""
        if self._follower is None:
            return None
        gained = self._follower.gained(busy=True)
        self.spent = Spent(self.spent.billed + gained, self.spent.idle)
        return gained

    def pass_idle(self) -> None:
        """Nothing ran since the last reading. To be called often enough that no counter turns over twice in between."""
        if self._follower is not None:
            self.spent = Spent(self.spent.billed, self.spent.idle + self._follower.gained(busy=False))

    def report(self, microjoules: int | None) -> dict[str, Any] | None:
        """What a reply's usage says of so much energy; None where nobody knows."""
        if self.source is None or microjoules is None:
            return None
        return {
            "joules": microjoules / MICRO,
            "co2e_grams": round(self.grams(microjoules), 9),
            "estimated": self.estimated,
            "source": self.source.name,
        }

    def grams(self, microjoules: int) -> float:
        """Grams of CO2 equivalent at the configured intensity."""
        return microjoules / MICRO / JOULES_PER_KWH * self.grams_per_kwh


class _Follower:
    """Turns a counter that is read now and then into what was gained up to this moment.

    Counters move in jumps (some ten times a second), steps are shorter. Between two movements the last power is assumed;
    whatever that was wrong by is put right at the next movement, so the sum is never further off than one jump.
    """

    def __init__(self, source: Source, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        now = clock()
        self._read_at = self._moved_at = self._seen_at = now
        self._reading = source.read(0.0)
        self._given = self._reading
        self._watts = 0.0  # microjoules per second
        self._busy = 0.0

    def gained(self, *, busy: bool) -> int:
        now = self._clock()
        self._busy += now - self._seen_at if busy else 0.0
        self._seen_at = now
        if self._source.steady or now - self._read_at >= READ_EVERY:
            reading = self._source.read(self._busy)
            if reading != self._reading:
                self._watts = (reading - self._reading) / max(now - self._moved_at, 1e-6)
                self._reading, self._moved_at = reading, now
            self._read_at = now
        total = self._reading
        if not self._source.steady:
            total += int(self._watts * min(now - self._moved_at, MOST_ASSUMED))
        gained = max(0, total - self._given)
        self._given += gained
        return gained


def make_meter(
    wanted: EnergySource, device: str, *, core_watts: float, gpu_watts: float, grams_per_kwh: float
) -> EnergyMeter:
    """The meter for a torch device ('cpu', 'cuda:0'). Raises EnergyUnreadable when a named source cannot be read."""
    kind = device.partition(":")[0]
    source = find_source(wanted, device, core_watts=core_watts, gpu_watts=gpu_watts)
    return EnergyMeter(source, grams_per_kwh, PASS_TOKENS.get(kind, PASS_TOKENS["cpu"]))
