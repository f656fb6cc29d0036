"""One model behind several engines: a conversation goes where its beginning is cached, unless that engine is busy or gone.

An engine that cannot be reached, fails or refuses before its first byte is passed over for the next; once a stream has begun
there is no way back, and a call that timed out has had its time; its engine rests like one that is gone. Only when none
answers is the last one's error raised. Counts are this process's own: several gateways choose alike, because the choice
follows from the conversation once its opening is read everywhere, and each bounds what it sends itself.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import ProviderError, ProviderFailed, ProviderRateLimited, ProviderTimeout, ProviderUnreachable
from gateway.providers.base import Call, Completion, EventStream, Provider

PASSED_OVER = (ProviderUnreachable, ProviderFailed, ProviderRateLimited)
"""Errors before the first byte after which another engine may do better. A call repeated at an own engine costs nobody."""
ALWAYS_OPEN = 4
"""An engine with fewer calls is never too busy: it computes them together anyway."""
MOST_OF_MEAN = 1.25
"""Beyond, an engine may have so many times its equal share of the calls (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing
with Bounded Loads, 2016): nearly everything stays where it is cached, and no engine gets more than a quarter too much."""
REST_SECONDS = 5.0
"""For so long an engine that could not be reached, or let a call time out, is asked last."""
BEGINNING = 512
"""Characters of the first turn that tell conversations apart, about eight blocks of an engine's cache. What tenants say before
it, the opening, counts whole."""
LONG_OPENING = 2048
"""An opening of so many characters, which other conversations may share, is worth going where it is cached."""
CALLS_PER_ENGINE = 8
"""For every so many calls that begin with it, one engine more takes a long opening, until all have read it: one that few ask
for is read once, and one that many ask for keeps no engine idle."""
MOST_OPENINGS = 10_000


@dataclass(slots=True)
class Replica:
    """One engine, how many calls of this process it is answering, and until when it is given a rest (monotonic)."""

    provider: Provider
    name: bytes
    calls: int = 0
    rests_until: float = 0.0


class Replicas:
    """Implements gateway.providers.base.Provider over engines that serve the same model."""

    def __init__(
        self, urls: Sequence[str], make: Callable[[str], Provider], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._replicas = [Replica(make(url), url.encode()) for url in urls]
        self._clock = clock
        self._openings: OrderedDict[bytes, int] = OrderedDict()

    async def complete(self, call: Call) -> Completion:
        """Ask the engines in the order of `order` until one answers."""
        failure: ProviderError | None = None
        for replica in self.order(call):
            replica.calls += 1
            try:
                return await replica.provider.complete(call)
            except PASSED_OVER as error:
                failure = self._passed_over(replica, error)
            except ProviderTimeout as error:
                self._passed_over(replica, error)
                raise
            finally:
                replica.calls -= 1
        assert failure is not None, "there is at least one replica"
        raise failure

    async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
        """The same for a stream, which counts as a call until it is closed."""
        failure: ProviderError | None = None
        for replica in self.order(call):
            replica.calls += 1
            try:
                return CountedStream(await replica.provider.stream(call, include_usage=include_usage), replica)
            except PASSED_OVER as error:
                replica.calls -= 1
                failure = self._passed_over(replica, error)
            except BaseException as error:
                replica.calls -= 1
                if isinstance(error, ProviderTimeout):
                    self._passed_over(replica, error)
                raise
        assert failure is not None, "there is at least one replica"
        raise failure

    async def close(self) -> None:
        """Close all of them."""
        for replica in self._replicas:
            await replica.provider.close()

    def order(self, call: Call) -> list[Replica]:
        """By the conversation's own order (rendezvous hashing), those first that its opening is kept to; who is too busy comes
        later, who rests comes last. The call is counted for its opening.

        Taking an engine away moves only the conversations that it had.
        """
        begin, now = beginning(call.tenant, call.body.get("messages")), self._clock()
        mean = (sum(replica.calls for replica in self._replicas) + 1) / len(self._replicas)
        most = max(ALWAYS_OPEN, MOST_OF_MEAN * mean)
        ranked = _ranked(self._replicas, begin.turn)
        if begin.opening is not None:
            homes = {each.name for each in _ranked(self._replicas, begin.opening)[: self._homes(begin.opening)]}
            ranked.sort(key=lambda each: each.name not in homes)
        # The sort is stable: among those alike in this, the conversation's order stays. Who is too busy is taken by its load.
        return sorted(ranked, key=lambda each: (each.rests_until > now, each.calls if each.calls >= most else 0))

    def _homes(self, opening: bytes) -> int:
        """Over how many engines the conversations with an opening are spread, this call included."""
        calls = self._openings.pop(opening, 0)
        self._openings[opening] = calls + 1
        if len(self._openings) > MOST_OPENINGS:
            self._openings.popitem(last=False)
        return 1 + calls // CALLS_PER_ENGINE

    def _passed_over(self, replica: Replica, error: ProviderError) -> ProviderError:
        if not isinstance(error, ProviderRateLimited):
            replica.rests_until = self._clock() + REST_SECONDS
        return error


class CountedStream:
    """An EventStream of a replica; closing it ends the replica's call."""

    def __init__(self, stream: EventStream, replica: Replica) -> None:
        self._stream = stream
        self._replica: Replica | None = replica

    @property
    def raw_usage(self) -> dict[str, Any] | None:
        """The engine's usage object, once seen."""
        return self._stream.raw_usage

    @property
    def output_characters(self) -> int:
        """Characters seen so far."""
        return self._stream.output_characters

    @property
    def reasoning_characters(self) -> int:
        """Characters of reasoning seen so far."""
        return self._stream.reasoning_characters

    @property
    def service_tier(self) -> str | None:
        """The service tier that the engine names."""
        return self._stream.service_tier

    @property
    def finish_reasons(self) -> dict[int, str]:
        """The finish reason of every choice that has one."""
        return self._stream.finish_reasons

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def close(self) -> None:
        """Drop the connection; the engine has one call less."""
        if self._replica is not None:
            self._replica.calls -= 1
            self._replica = None
        await self._stream.close()


@dataclass(frozen=True, slots=True)
class Beginning:
    """Digests of how a conversation begins: up to the start of its first turn, and its opening, if that is long."""

    turn: bytes
    opening: bytes | None


def beginning(tenant: str, messages: object) -> Beginning:
    """How a conversation begins: its tenant, what stands before the first turn (the opening), and the start of that turn.

    It stays the same while the conversation goes on. Two tenants share none, as their engines' caches share nothing.
    """
    digest = hashlib.blake2b(tenant.encode(errors="replace"), digest_size=16)
    opening, length = digest.digest(), 0
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        role, text = str(message.get("role")), repr(message.get("content"))
        before = role in ("system", "developer")
        digest.update(f"\0{role}\0{text if before else text[:BEGINNING]}".encode(errors="replace"))
        if not before:
            break
        opening, length = digest.digest(), length + len(text)
    return Beginning(digest.digest(), opening if length >= LONG_OPENING else None)


def _ranked(replicas: Sequence[Replica], key: bytes) -> list[Replica]:
    """Rendezvous hashing: the order of a key among these, which is the same whoever else is there."""
    return sorted(replicas, key=lambda each: hashlib.blake2b(each.name, key=key, digest_size=8).digest(), reverse=True)
