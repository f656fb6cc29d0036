"""How every deployment does, learnt in this process from its own calls: errors, time to the first token, speed. Kept in memory,
so a gateway that starts knows nothing and finds out.

Errors and times are averages that forget: what happened a half-life ago counts half, whether or not it is asked again. A
deployment whose last calls failed, or most of its recent ones, is *failing*. It is put behind the others, and one request after
PROBE_SECONDS, doubled for each probe that fails, tries it again: the first answer makes it a candidate like the others. In the
same way, with longer pauses, one that is too slow for a policy is tried again and measured anew. A single deployment is never
left out, whatever it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.errors import ProviderError
from gateway.routing.ask import Candidate, State, seconds_to_read, share_unread
from gateway.routing.averages import Average, FirstTokens

HALF_LIFE = 60.0
"""Seconds after which an error counts half."""
SPEED_HALF_LIFE = 300.0
IN_A_ROW = 3
"""So many failures one after the other make a deployment failing, however few calls there are."""
ENOUGH_CALLS = 10.0
TOO_MANY_ERRORS = 0.5
"""So does a larger share of errors than this among at least so many recent calls."""
PROBE_SECONDS = 5.0
LONGEST_PROBE_SECONDS = 60.0
RETRY_SECONDS = 60.0
"""So long after it was last measured a slow deployment may be tried again; each try makes a request late, so seldom."""
LONGEST_RETRY_SECONDS = 600.0
AGE_SECONDS = 1.0
"""How exactly time is told to what nobody asks any more."""


class _Deployment:
    """One deployment's averages, its circuit (closed, or open with the moment of the next probe), and when it may be tried
    again by a policy that it is too slow for.
    """

    __slots__ = (
        "errors", "failing", "first_token", "in_a_row", "pause", "per_token", "probe_at", "probing",
        "retry_at", "retry_pause", "retrying",
    )  # fmt: skip

    def __init__(self) -> None:
        self.errors = Average(HALF_LIFE)
        self.first_token = FirstTokens(SPEED_HALF_LIFE)
        self.per_token = Average(SPEED_HALF_LIFE)
        self.in_a_row = 0
        self.failing = False
        self.probing = False
        self.pause = PROBE_SECONDS
        self.probe_at = 0.0
        self.retrying = False
        self.retry_pause = RETRY_SECONDS
        self.retry_at = 0.0

    def answered(self, now: float) -> None:
        if self.failing:
            self.errors = Average(HALF_LIFE)
            self.failing, self.probing, self.pause = False, False, PROBE_SECONDS
        if self.retrying:
            # What made it too slow would outweigh the try for a long time.
            self.first_token, self.per_token = FirstTokens(SPEED_HALF_LIFE), Average(SPEED_HALF_LIFE)
            self.retrying = False
        else:
            self.retry_pause = RETRY_SECONDS
        self.retry_at = now + self.retry_pause
        self.in_a_row = 0
        self.errors.add(0.0, now)

    def failed(self, now: float) -> None:
        self.in_a_row += 1
        self.errors.add(1.0, now)
        often = self.errors.weight >= ENOUGH_CALLS and (self.errors.mean or 0.0) > TOO_MANY_ERRORS
        if self.failing:
            # Calls that began before it was called failing end now too; only a probe says something new.
            if self.probing:
                self.probing, self.pause = False, min(2 * self.pause, LONGEST_PROBE_SECONDS)
                self.probe_at = now + self.pause
        elif often or self.in_a_row >= IN_A_ROW:
            self.failing, self.probe_at = True, now + self.pause

    def probe(self, now: float) -> None:
        self.probing, self.probe_at = True, now + self.pause

    def retry(self, now: float) -> None:
        self.retrying, self.retry_pause = True, min(2 * self.retry_pause, LONGEST_RETRY_SECONDS)
        self.retry_at = now + self.retry_pause

    def age(self, now: float) -> None:
        self.first_token.fade(now)
        self.per_token.fade(now)
        if not self.failing:  # why it is put behind is said until it is tried again
            self.errors.fade(now)

    def state(self) -> State:
        first, per_token = self.first_token, self.per_token.mean
        slopes = (
            (first.read, first.slope(seconds_to_read(per_token)), first.slope(0.0)) if first.mean is not None else ()
        )
        errors = self.errors.mean or 0.0
        return State(first.mean, per_token, errors, self.failing, self.probe_at, self.retry_at, *slopes)


class Health:
    """The state of every deployment of one process, by its index in the catalog."""

    def __init__(self, deployments: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deployments = [_Deployment() for _ in range(deployments)]
        self._states = [State()] * deployments
        self._aged_at = clock()

    def now(self) -> float:
        """The clock that `probe_at` and `retry_at` are read on."""
        return self._clock()

    def states(self) -> Sequence[State]:
        """How each deployment has done as of now, by index; what comes in later is seen in the same object."""
        if self._clock() >= self._aged_at + AGE_SECONDS:
            for index in range(len(self._deployments)):
                self._renew(index)
            self._aged_at = self._clock()
        return self._states

    def chosen(self, candidate: Candidate) -> None:
        """A request is about to ask this one first. When it is a probe or a try, no other request is, for a while."""
        deployment, now = self._deployments[candidate.model.index], self._clock()
        probes = deployment.failing and now >= deployment.probe_at
        if probes:
            deployment.probe(now)
        if candidate.retried:
            deployment.retry(now)
        if probes or candidate.retried:
            self._states[candidate.model.index] = deployment.state()

    def failed(self, index: int, error: ProviderError) -> None:
        """A call ended with an error. What is the request's own fault says nothing of the deployment."""
        if error.retry_word is not None or error.code == "stream_cut":
            self._deployments[index].failed(self._clock())
            self._renew(index)

    def answered(
        self,
        index: int,
        seconds: float,
        first_token: float | None,
        output_tokens: int,
        input_tokens: int = 0,
        cached: int = 0,
    ) -> None:
        """A call was answered after `seconds`; `first_token` is None for a reply that came whole. Of its `input_tokens` the
        provider had `cached`, as it says.
        """
        deployment, now = self._deployments[index], self._clock()
        deployment.answered(now)
        if first_token is not None:
            deployment.first_token.add(max(input_tokens - cached, 0), first_token, now)
        if output_tokens > 0:
            waited = first_token if first_token is not None else deployment.state().first(input_tokens, cached)
            if waited is None:
                # What reading takes is in here, so it is kept as if nothing had been cached; State.seconds takes it off again.
                waited, seconds = 0.0, seconds / share_unread(output_tokens, input_tokens, cached)
            deployment.per_token.add(max(seconds - waited, 0.0) / output_tokens, now)
        self._renew(index)

    def _renew(self, index: int) -> None:
        deployment, now = self._deployments[index], self._clock()
        deployment.age(now)
        self._states[index] = deployment.state()
