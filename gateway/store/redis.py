"""Counters shared by all gateway processes in Redis (7.0 or newer): one Lua call, one round trip, per reserve and adjust.

Counters live as long as the Redis process: one that comes back with a snapshot, or a replica in its place, begins anew.
When Redis does not answer within the deadline every method raises Unavailable and the request is refused. A reserve that
Redis reads only after its caller has given up does nothing (the script compares a deadline with Redis's own clock); one that
took its claims and whose answer was lost is undone as soon as Redis answers again, within UNDONE_SECONDS.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway.errors import ConfigError, Unavailable
from gateway.store.base import MAKERS, ONCE_SECONDS, Claim, Maker, Missing, Refused, Taken

DEADLINE_SECONDS = 1.0
"""How long Redis may take. It is counted in steps of a tenth, and only those whose end was noticed in time: a process that
is too busy to look for the answer does not hold that against Redis."""
STEPS = 10
LONGEST_SECONDS = 5.0
"""The end of patience, however busy the process is."""
TRIES_WHEN_LATE = 3
UNDONE_SECONDS = 300.0
"""As long as the script remembers what a reserve took (LATELY in reserve.lua)."""
UNDO_EVERY = 1.0
MOST_LOST = 10_000
CONNECTIONS = 64
PREFIX = "{penstock}:"
"""The hash tag keeps all keys of a call in one slot, as a Redis cluster demands of a script."""

EPOCH = f"{PREFIX}epoch"

LATE, OTHER_EPOCH, MISSING, TOLD = 0, -1, -2, -3
"""First number of a reply of reserve.lua; a positive one is the claim that was refused."""
TRIES_WHEN_RESTARTED = 3
_LUA = {
    name: (Path(__file__).parent / f"{name}.lua").read_text("utf-8")
    for name in ("life", "reserve", "adjust", "undo", "read")
}
logger = logging.getLogger(__name__)
_WITH_LIFE = ("reserve", "adjust", "undo")
_Answer = TypeVar("_Answer")


class _Lost(NamedTuple):
    """A reserve of which nobody knows whether it took its claims: since when, and what undo is called with."""

    since: float
    keys: list[str]
    arguments: list[str]


class RedisStore:
    """The contract of gateway.store.base.Store over one Redis. Raises ConfigError for a URL that is not one."""

    loses_answers = True

    def __init__(self, url: str, *, deadline: float = DEADLINE_SECONDS) -> None:
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=max(deadline, LONGEST_SECONDS),
                socket_timeout=max(deadline, LONGEST_SECONDS),
                socket_connect_timeout=max(deadline, LONGEST_SECONDS),
                # A repeated reserve would count twice, so the client must never repeat by itself.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(f"the Redis URL is not valid: {error}. Write it as redis://host:6379/0.") from None
        self._deadline = deadline
        self._redis: Redis = Redis.from_pool(pool)
        self._read = self._redis.register_script(_LUA["read"])
        # The names of scripts in the Redis process that was last spoken to.
        self._scripts: dict[str, str] = {}
        self._loading = asyncio.Lock()
        self.epoch = ""
        self._calls = (f"{PREFIX}taken/{uuid.uuid4().hex}/{number}" for number in itertools.count())
        self._lost: deque[_Lost] = deque()
        self._undoing: asyncio.Task[None] | None = None
        self._closed = False
        # Redis's clock minus ours, seconds; measured at the first call and again whenever something went wrong.
        self._clock_difference: float | None = None

    async def reserve(self, claims: Sequence[Claim], *, tell: Sequence[int] = ()) -> Taken | Refused | Missing | None:
        """Take all claims or none; see Store.reserve."""
        if not claims:
            return None
        keys = [PREFIX + claim.counter for claim in claims]
        keys += (next(self._calls), EPOCH)
        arguments = [",".join(str(index + 1) for index in tell)]
        for _, amount, limit, expires_at, lease, kept, sliding, clock in claims:
            expires = "" if expires_at is None else str(int(expires_at * 1000))
            flags = ("k" if kept else "") + ("s" if sliding else "") + ("c" if clock else "")
            arguments += (str(amount), str(limit), expires, lease or "", flags)
        for _ in range(TRIES_WHEN_LATE):
            sent: list[bool] = []
            try:
                reply = await self._ask(lambda: self._reserve_in_time(keys, arguments, sent))  # noqa: B023 (awaited here)
            except (Unavailable, asyncio.CancelledError):
                if sent:
                    self._undo_later(keys, arguments)
                raise
            if not reply:
                return None
            if int(reply[0]) != LATE:
                break
        what, *rest = (int(value) for value in reply)
        if what == TOLD:
            return Taken(tuple(rest))
        if what == MISSING:
            return Missing(tuple(claims[index - 1] for index in rest))
        if what == LATE:
            raise Unavailable("the shared store (Redis) answered too late; nothing was reserved. Try again.")
        return Refused(claims[what - 1], rest[0])

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
        """Correct claims to their actual amounts and release leases; see Store.adjust."""
        if not claims:
            return by
        keys = [PREFIX + claim.counter for claim, _ in claims]
        keys.append(EPOCH)
        arguments = [epoch or "", "", str(MAKERS.index(by) + 1)]
        if once is not None:
            keys.append(f"{PREFIX}done/{once}")
            arguments[1] = str(int(remember))
        for claim, actual in claims:
            difference = actual - claim.amount
            when_lost = (0 if late else difference) if claim.kept else actual
            arguments += (str(difference), str(when_lost), claim.lease or "")
        return MAKERS[int(await self._ask(lambda: self._run("adjust", keys, arguments))) - 1]

    def age(self) -> float:
        """See Store.age; by Redis's clock."""
        return time.time() + (self._clock_difference or 0.0) - float(self.epoch.partition("/")[0] or 0)

    async def read(self, counters: Sequence[str]) -> list[int]:
        """Current values; see Store.read."""
        if not counters:
            return []
        values = await self._ask(lambda: self._read(keys=[PREFIX + counter for counter in counters]))
        return [int(value) for value in values]

    async def restore(self, counter: str, value: int, expires_at: float | None) -> bool:
        """Set a counter that does not exist; see Store.restore."""
        ends = None if expires_at is None else int(expires_at * 1000)
        if ends is not None and ends <= time.time() * 1000:
            return False
        return bool(await self._ask(lambda: self._redis.set(PREFIX + counter, value, nx=True, pxat=ends)))

    async def close(self) -> None:
        """Close all connections, after one last attempt at what is to be undone."""
        self._closed = True
        if self._undoing is not None:
            self._undoing.cancel()
            await asyncio.gather(self._undoing, return_exceptions=True)
        with suppress(Unavailable):
            await self._undo_lost(settled=0.0)
        if self._lost:
            logger.error("%d reserves could not be undone; their limits count too much", len(self._lost))
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    def _undo_later(self, keys: list[str], arguments: list[str]) -> None:
        """See to it that these claims are given back should Redis have taken them after all."""
        if len(self._lost) == MOST_LOST or self._closed:
            logger.error(
                "a reserve whose answer was lost is not undone; if it took anything, its limits count too much"
            )
            return
        claims = [arguments[at : at + 5] for at in range(1, len(arguments), 5)]
        undo = [value for amount, _, _, lease, flags in claims for value in (amount, lease, flags)]
        self._lost.append(_Lost(time.monotonic(), keys, undo))
        if self._undoing is None or self._undoing.done():
            self._undoing = asyncio.create_task(self._undo())

    async def _undo(self) -> None:
        while self._lost:
            await asyncio.sleep(UNDO_EVERY)
            with suppress(Unavailable):
                await self._undo_lost(settled=self._deadline + UNDO_EVERY)

    async def _undo_lost(self, settled: float) -> None:
        """Undo what was lost `settled` seconds ago: before, Redis may still read and take it. Raises Unavailable."""
        for _ in range(len(self._lost)):
            lost = self._lost[0]
            age = time.monotonic() - lost.since
            if age < settled:
                return
            if age < UNDONE_SECONDS:
                self._lost.rotate(-1)  # the next in line is tried next should this one fail
                await self._ask(partial(self._run, "undo", lost.keys, lost.arguments))
                self._lost.remove(lost)
            else:
                self._lost.popleft()
                logger.error(
                    "a reserve was lost too long ago to be undone; if it took anything, its limits count too much"
                )

    async def _reserve_in_time(self, keys: list[str], arguments: list[str], sent: list[bool]) -> Any:
        """Reserve with a deadline on Redis's clock. A clock that has drifted, or an epoch that is over, is learnt once.

        `sent` gets an entry before Redis may have heard of it.
        """
        gives_up_at = time.time() + self._deadline
        measured = False
        while True:
            if self._clock_difference is None:
                seconds, microseconds = await self._redis.time()
                self._clock_difference = seconds + microseconds / 1e6 - time.time()
                measured = True
            last_moment = int((gives_up_at + self._clock_difference) * 1000)
            sent.append(True)
            reply = await self._run("reserve", keys, [str(last_moment), self.epoch, *arguments])
            if reply and int(reply[0]) == OTHER_EPOCH:
                self.epoch = reply[1].decode()
            elif not measured and reply and int(reply[0]) == LATE:
                self._clock_difference = None
            else:
                return reply

    async def _run(self, name: str, keys: list[str], arguments: list[str]) -> Any:
        """Call a script; load them again when this is another Redis process than before. Raises RedisError."""
        for _ in range(TRIES_WHEN_RESTARTED):
            known = self._scripts
            try:
                if known:
                    return await self._redis.evalsha(known[name], len(keys), *keys, *arguments)
            except NoScriptError:
                pass
            async with self._loading:
                if self._scripts is known:
                    await self._load()
        raise RedisError("it forgets scripts as soon as they are loaded")

    async def _load(self) -> None:
        # Over one connection, so that it is the process with this id that gets the scripts.
        async with self._redis.client() as connection:
            run = f"local run = '{(await connection.info('server'))['run_id']}'\n"
            self._scripts = {name: await connection.script_load(run + _LUA["life"] + _LUA[name]) for name in _WITH_LIFE}

    async def _ask(self, question: Callable[[], Awaitable[_Answer]]) -> _Answer:
        loop = asyncio.get_running_loop()
        step, longest = self._deadline / STEPS, loop.time() + max(self._deadline, LONGEST_SECONDS)

        timer: asyncio.TimerHandle

        def tick(due: float, left: int) -> None:
            nonlocal timer
            now = loop.time()
            left -= now - due < step / 2
            if left > 0 and now < longest:
                timer = loop.call_at(now + step, tick, now + step, left)
            else:
                waiting.reschedule(now)

        timer = loop.call_later(step, tick, loop.time() + step, STEPS)
        try:
            async with asyncio.timeout(None) as waiting:
                return await question()
        except TimeoutError:
            self._clock_difference = None
            raise Unavailable(f"the shared store (Redis) did not answer within {self._deadline:g} s.") from None
        except (RedisError, OSError) as error:
            self._clock_difference = None
            raise Unavailable(f"the shared store (Redis) cannot be used: {error}") from error
        finally:
            timer.cancel()
