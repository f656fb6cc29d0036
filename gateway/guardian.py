"""Kills what a supervisor leaves behind when it dies without stopping its children (`kill -9`, out of memory).

A process of its own, standard library only. It reads process group ids from standard input, one per line (a negative
one: that group has ended by itself). The end of the input means that the supervisor is gone, however it went.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def watch(lines: Iterable[bytes]) -> None:
    """Keep the list of groups until the input ends, then kill those that are left.

    SIGKILL, because nobody is left to wait for a polite end, and what matters (the spool) survives it by design.
    """
    groups: set[int] = set()
    for line in lines:
        group = int(line)
        if group > 0:
            groups.add(group)
        else:
            groups.discard(-group)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    watch(sys.stdin.buffer)
