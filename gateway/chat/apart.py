"""Work on many past requests in a process of its own, so that no request waits for it: replays, and the router's card.

One of each at a time, and none longer than its time. Cards are kept for a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import BoundedSemaphore
from typing import Any

from gateway.catalog import Catalog
from gateway.chat.replaying import Wish, run_replay
from gateway.chat.router_card import router_card
from gateway.db.connect import Database, connect
from gateway.errors import ConfigError, Conflict, InvalidValue, NotFound, PenstockError, Unavailable

SECONDS = 120.0
NICER = 10
"""How much this work steps behind the gateway when both want the processor."""
KEPT_SECONDS = 60.0
MOST_KEPT = 32
MOST_WAITING = 8
"""Callers that wait for cards; more are refused."""
Document = dict[str, Any]
Work = Callable[[Database], Document]
_turn = BoundedSemaphore()


def replay_apart(url: str, catalog: Catalog, wish: Wish) -> Document:
    """`run_replay` in another process; blocks until it is done. Raises what it raises, Conflict while another one runs."""
    if not _turn.acquire(blocking=False):
        raise Conflict("Another replay is running in this gateway process; ask again when it is done.")
    try:
        return _run(url, partial(run_replay, catalog=catalog, wish=wish))
    finally:
        _turn.release()


class Cards:
    """The cards of one gateway process: made in another one, each for all who ask within a minute."""

    def __init__(self, url: str, catalog: Catalog, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._catalog = catalog
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._kept: OrderedDict[Hashable, tuple[float, Document]] = OrderedDict()

    async def card(self, artifact: str | None, confidence: float, tenant: str | None) -> Document:
        """`router_card` as it was at most a minute ago. Raises what it raises, Conflict when too many wait."""
        asked = (artifact, confidence, tenant)
        kept = self._fresh(asked)
        if kept is not None:
            return kept
        if self._waiting >= MOST_WAITING:
            raise Conflict("Other cards are being made in this gateway process; ask again when they are done.")
        self._waiting += 1
        try:
            async with self._turn:
                kept = self._fresh(asked)
                return kept if kept is not None else await self._make(asked)
        finally:
            self._waiting -= 1

    def _fresh(self, asked: Hashable) -> Document | None:
        made_at, card = self._kept.get(asked, (-KEPT_SECONDS, None))
        return card if self._clock() - made_at < KEPT_SECONDS else None

    async def _make(self, asked: tuple[str | None, float, str | None]) -> Document:
        artifact, confidence, tenant = asked
        work = partial(router_card, catalog=self._catalog, artifact=artifact, confidence=confidence, tenant=tenant)
        card = await asyncio.to_thread(_run, self._url, work)
        self._kept[asked] = self._clock(), card
        self._kept.move_to_end(asked)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return card


def _run(url: str, work: Work) -> Document:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, url, work), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            raise Unavailable(
                f"this took longer than {SECONDS:.0f} s and was ended; for a replay take a smaller sample."
            )
        kind, document = ours.recv()
    except EOFError:
        raise Unavailable("the process that was to answer ended before; the log may say why.") from None
    finally:
        ours.close()
        process.kill()
        process.join()
    if kind == "done":
        found: Document = document
        return found
    message, param = document
    if kind == "nothing":
        raise NotFound(message)
    raise InvalidValue(message, param=param) if kind == "wrong" else Unavailable(message)


def _work(answer: Connection, url: str, work: Work) -> None:
    os.nice(NICER)
    database = connect(url, deadline_seconds=SECONDS)
    try:
        answer.send(("done", work(database)))
    except NotFound as error:
        answer.send(("nothing", (error.message, None)))
    except InvalidValue as error:
        answer.send(("wrong", (error.message, error.param)))
    except ConfigError as error:
        answer.send(("wrong", (f"{error}", None)))
    except PenstockError as error:
        answer.send(("unavailable", (error.message, None)))
    finally:
        database.close()
