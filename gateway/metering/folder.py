"""Keeps a spool folder for one deliverer at a time; another one waits for it and then says so."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from gateway.errors import StartupError


def keep_for_one(folder: Path, seconds: float) -> int:
    """The open lock of the folder, which is made if needed. Raises StartupError when another process keeps it for so long."""
    path = folder / "deliverer.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(
            f"cannot write to the spool folder {str(folder)!r}: {error.strerror}. Make it writable."
        ) from error
    gives_up_at = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= gives_up_at:
                os.close(file)
                raise StartupError(
                    f"another process delivers the spool {str(folder)!r} already. "
                    "Stop it, or set PENSTOCK_DATA_DIR to another folder."
                ) from None
            time.sleep(0.05)
