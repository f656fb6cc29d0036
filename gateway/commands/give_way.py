"""Low priority for processes that work behind the answers."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10


def give_way() -> None:
    """Answers come first: on a machine that is full, the spool grows, jobs are late, and both catch up."""
    os.nice(NICENESS)
    with suppress(OSError):  # Linux may weigh whole sessions against each other, and then only this counts
        Path("/proc/self/autogroup").write_text(str(NICENESS))
