"""The contract of shared counters: claims over several counters succeed together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

ONCE_SECONDS = 300.0
"""How long a store remembers the name of a correction."""

KEPT_SECONDS = 6 * 3600.0
"""The same for corrections of kept counters, whose holds a job may come upon later. Nobody touches a hold of a request that is
older than this without a name: the request may have been corrected, and correcting twice would let a budget be overspent.
It costs the store one small key for each request with budgets, for so long."""

Maker = Literal["request", "job"]
"""Who corrects the claims of a request: its own process when it settles, or the job that gives back what nobody settled."""
MAKERS: tuple[Maker, ...] = get_args(Maker)


class Claim(NamedTuple):
    """Add `amount` to `counter` if the counter then stays at or below `limit`.

    `expires_at` (seconds since the epoch) ends the counter: the end of its minute or budget period. None keeps it. The
    first claim on a counter sets its end; later ones move it only when `sliding`, and then only further away.
    `lease` is set for counters of things in flight: each claim then counts until it is released or `expires_at` passes
    by itself, so a lost holder cannot block a slot for ever. A lease counts 1 (its amount must be 1), however often it
    is taken again.
    A `kept` counter must exist: only `Store.restore` makes it, because what it stood at before is known elsewhere.
    A `clock` keeps the `amount` of its first claim, a moment, and refuses those that are more than `limit` after it.
    Amounts and limits are 0 to 2^63 - 1. (A tuple, because every request makes several and a frozen dataclass takes three
    times as long to make.)
    """

    counter: str
    amount: int
    limit: int
    expires_at: float | None = None
    lease: str | None = None
    kept: bool = False
    sliding: bool = False
    clock: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """All claims are taken; `values` is what the counters that were asked for stand at now."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The first claim that did not fit, and what its counter stood at. Nothing was taken from any counter."""

    claim: Claim
    used: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Claims on kept counters that do not exist. Nothing was taken; restore them and ask again."""

    claims: tuple[Claim, ...]

    @property
    def counters(self) -> tuple[str, ...]:
        """The names to restore."""
        return tuple(claim.counter for claim in self.claims)


class Store(Protocol):
    """Counters that all gateway processes share.

    Every method raises gateway.errors.Unavailable when the store does not answer within its deadline; the caller then
    refuses the request (money fails closed).
    """

    loses_answers: bool
    """Whether a change may have been made although its answer was lost, so that a repetition needs a name."""

    epoch: str
    """Names the life of the counters that the last `reserve` saw; a store that lost its data begins another one."""

    def age(self) -> float:
        """Seconds since that life began."""
        ...

    async def reserve(self, claims: Sequence[Claim], *, tell: Sequence[int] = ()) -> Taken | Refused | Missing | None:
        """Take all claims in one atomic step, or none. Each claim names another counter.

        Returns None on success, or, when `tell` has positions in `claims`, Taken with the values of those counters
        (which are not leases). Missing is answered before Refused, and names every kept counter that is missing.
        """
        ...

    async def adjust(
        self,
        claims: Sequence[tuple[Claim, int]],
        *,
        once: str | None = None,
        remember: float = ONCE_SECONDS,
        epoch: str | None = None,
        late: bool = False,
        by: Maker = "request",
    ) -> Maker:
        """Correct taken claims to what was really used, atomically.

        For each pair the counter changes by `actual - claim.amount` (never below zero; a counter that has expired is
        left alone), and a lease is released. With `once`, a name for this correction, repeating the call changes nothing:
        after Unavailable nobody knows whether it was done, and only a named correction may be tried again. The name is
        remembered for `remember` seconds, with who made the correction; the answer says who that was, `by` if it was this call.
        `epoch` is the store's when the claims were taken, `late` that it did not answer when they should have been
        corrected. If it has lost its data since, a kept counter was restored while the request was open, with its hold, or,
        when this is late, after it had ended, with its charge: then nothing is left to correct. On other counters nothing
        is left of the claims, and `actual` is added.
        """
        ...

    async def read(self, counters: Sequence[str]) -> list[int]:
        """Current values; zero for a counter that does not exist."""
        ...

    async def restore(self, counter: str, value: int, expires_at: float | None) -> bool:
        """Set a counter to `value` if it does not exist (rebuilt from what the database knows). Whether this call did."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
