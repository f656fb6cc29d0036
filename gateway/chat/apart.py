"""Replays in a process of its own, so that no request waits for it; one at a time, and none longer than its time."""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import BoundedSemaphore
from typing import Any

from gateway.catalog import Catalog
from gateway.chat.replaying import Wish, run_replay
from gateway.db.connect import connect
from gateway.errors import ConfigError, Conflict, InvalidValue, NotFound, PenstockError, Unavailable

SECONDS = 120.0
NICER = 10
"""How much a replay steps behind the gateway when both want the processor."""
_turn = BoundedSemaphore()


def replay_apart(url: str, catalog: Catalog, wish: Wish) -> dict[str, Any]:
    """`run_replay` in another process; blocks until it is done. Raises what it raises, Conflict while another one runs."""
    if not _turn.acquire(blocking=False):
        raise Conflict("Another replay is running in this gateway process; ask again when it is done.")
    try:
        return _run(url, catalog, wish)
    finally:
        _turn.release()


def _run(url: str, catalog: Catalog, wish: Wish) -> dict[str, Any]:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, url, catalog, wish), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            raise Unavailable(f"the replay took longer than {SECONDS:.0f} s and was ended; take a smaller sample.")
        kind, document = ours.recv()
    except EOFError:
        raise Unavailable("the replay ended without an answer; the log may say why.") from None
    finally:
        ours.close()
        process.kill()
        process.join()
    if kind == "done":
        found: dict[str, Any] = document
        return found
    message, param = document
    if kind == "nothing":
        raise NotFound(message)
    raise InvalidValue(message, param=param) if kind == "wrong" else Unavailable(message)


def _work(answer: Connection, url: str, catalog: Catalog, wish: Wish) -> None:
    os.nice(NICER)
    database = connect(url, deadline_seconds=SECONDS)
    try:
        answer.send(("done", run_replay(database, catalog, wish)))
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
