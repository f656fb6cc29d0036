"""What the engine asks of a drafter: proposals for what comes next. A wrong one costs time, never a wrong answer.

In every step the engine calls `propose` for the requests whose answer runs, computes the proposals along with the last
known token, verifies them, and hands `observe` what the step computed of the tokens that are known now. A drafter that
raises costs its requests their drafts of this step: they go on without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from local_engine.request import Request


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Proposed tokens, first one next; may be fewer than wanted, or none.

    `probabilities` [len(tokens), vocab] float32 on the CPU, normalised: what each token was drawn from. None means that
    the tokens are the drafter's only proposals (a point mass: n-gram, or the most likely token). A drafter that draws
    must have drawn: tokens picked greedily from `probabilities` would bend the answer's distribution. `kind` names the
    way the draft was found ("ngram", "head", ...); acceptance is learned per kind. `chances` [len(tokens)] is how likely
    each token is to be kept if those before it are, as far as the drafter can tell; None: it cannot.
    """

    tokens: tuple[int, ...] = ()
    probabilities: Tensor | None = None
    kind: str = ""
    chances: tuple[float, ...] | None = None


NO_DRAFT = Draft()


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one step computed of `request`: row `row` of `streams` [n, len(taps) * hidden_size], its last known token's.

    The token is at `position`. Rejected drafts are not known; the newest known token is not computed yet. `position` may
    lie before what was seen already: a preempted request is computed again.
    """

    request: Request
    position: int
    streams: Tensor
    row: int

    @property
    def stream(self) -> Tensor:
        """[len(taps) * hidden_size]."""
        return self.streams[self.row]


class Drafter(Protocol):
    """Called on the engine's thread only."""

    taps: tuple[int, ...]
    """Layers of the target behind which it reads the stream, laid side by side in this order; the last one is
    `layers - 1`. Empty: it needs none, and `observe` is not called."""

    costly: bool
    """Whether proposing takes time worth counting: then it is asked only while that brings more than it takes."""

    kind: str
    """The `kind` of most of its drafts: by their acceptance it is decided whether to ask for more."""

    def propose(self, requests: Sequence[Request], wanted: Sequence[int], least: float = 0.0) -> list[Draft]:
        """A draft of at most `wanted[i]` tokens (at least 1) to follow `requests[i].tokens`, for each.

        One that takes time ends a draft where the chance that all of it is right falls below `least`; but one that is drawn
        has the length that was wanted, as what was drawn must not decide whether it is used.
        """
        ...

    def observe(self, seen: Sequence[Seen]) -> None:
        """Take what a step computed; called after the answers' new tokens are in `request.tokens`.

        Called for every step, also while nothing is drafted: keep the streams, within bounds, and work in `propose`.
        """
        ...

    def forget(self, request: Request) -> None:
        """The request has ended: drop what is kept for it. Called for every request, also one never seen."""
        ...


def taps_of(drafters: Sequence[Drafter]) -> tuple[int, ...]:
    """Layers of the target whose streams are wanted by the drafters, in their order."""
    return tuple(layer for drafter in drafters for layer in drafter.taps)
