"""How `serve` ends on signals: early ones at once, a second Ctrl-C cuts what is open, a third waits for nothing.

Python must not be torn down while a thread computes in native code, which would crash: such a process leaves by `leave`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_BEFORE_SERVING = b"stopped before the model was loaded\n"
_AT_ONCE = b"stopped at once: answers that were open are cut\n"
INTERRUPTED = 130
"""Exit status after a third Ctrl-C, as shells count an interrupted program."""


def stop_early() -> None:
    """Until the server takes its signals over, SIGTERM and SIGINT end the process with one line and status 0."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end_early)


def ignore_late() -> None:
    """uvicorn raises its signals again when it has ended; without this the process would end as killed instead of done."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)


def end_at_once() -> NoReturn:
    """Leave from within a signal handler, where only the simplest is safe."""
    os.write(sys.stderr.fileno(), _AT_ONCE)
    os._exit(INTERRUPTED)


def leave(status: int) -> NoReturn:
    """End the process without taking Python down, after everything written has gone out."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_early(_: int, __: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), _BEFORE_SERVING)
    os._exit(0)
