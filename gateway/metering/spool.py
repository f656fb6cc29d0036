"""The durable spool: every hold and every finished request is one append to a file before anything depends on it.

An append is one write(2) to the page cache, so a killed process loses nothing; fsync is grouped by a thread off the request
path, so a power cut loses at most SYNC_SECONDS. When an append fails (disk full) a hold raises Unavailable before the
upstream is called; a settle is kept in memory, tried again until it succeeds, and no new hold is accepted meanwhile.

A writer is one open Spool. Its files are `WRITER.lock`, locked while it lives, and the segments `WRITER.000001.spool`...
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import threading
import time
from pathlib import Path

from gateway.errors import StartupError, Unavailable
from gateway.metering.records import encode
from gateway.types import Hold, UsageEvent
from gateway.verdicts import Feedback, Shadow

SEGMENT_BYTES = 32 * 1024 * 1024
SEGMENT_SECONDS = 3600.0
"""A segment that has something in it is not written to for longer, so that what was delivered leaves the disk soon after."""
SYNC_SECONDS = 0.05
logger = logging.getLogger(__name__)


class Spool:
    """Appends records to this process's own segments. Open it with `Spool.open`; close it to release the lock."""

    def __init__(self, folder: Path, writer: str, lock: int, segment_bytes: int, segment_seconds: float) -> None:
        self.writer = writer
        self._folder = folder
        self._lock_file = lock
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._guard = threading.Lock()
        self._number = 0
        self._file = -1
        self._size = 0
        self._began = 0.0
        self._dirty = False
        self._broken: str | None = None
        self._backlog: list[bytes] = []
        # Files (and the folder, after a new name in it) that the next sync flushes and closes.
        self._finished: list[int] = []
        self._stop = threading.Event()
        self._start_segment()
        self._syncer = threading.Thread(target=self._sync_until_stopped, name="spool-sync", daemon=True)
        self._syncer.start()

    @classmethod
    def open(
        cls, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_seconds: float = SEGMENT_SECONDS
    ) -> Spool:
        """Create the folder if needed and a writer of its own. Raises StartupError when that is not possible."""
        writer = f"{time.time_ns() // 1000:017d}-{os.getpid()}-{secrets.token_hex(4)}"
        lock = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Locked before it gets its name: whoever sees the name and can take the lock knows that the writer is gone.
            unnamed = folder / f"{writer}.new"
            lock = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.rename(folder / f"{writer}.lock")
            return cls(folder, writer, lock, segment_bytes, segment_seconds)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            raise StartupError(
                f"cannot write to the spool folder {str(folder)!r}: {error.strerror}. "
                "Make it writable, or set PENSTOCK_DATA_DIR to a folder that is."
            ) from error

    def hold(self, hold: Hold) -> None:
        """Record a hold. Raises Unavailable when it cannot be written; the upstream must then not be called."""
        reason = self._write(encode(hold), keep=False)
        if reason is not None:
            raise Unavailable(f"the metering spool cannot be written ({reason}); no request is accepted unmetered.")

    def settle(self, event: UsageEvent) -> None:
        """Record a finished request; call it before the last byte of the reply leaves. Never raises for a failed write."""
        self._write(encode(event), keep=True)

    def say(self, said: Feedback | Shadow) -> None:
        """Record what is said of an answer. Raises Unavailable when it cannot be written; it is then not kept."""
        try:
            reason = self._write(encode(said), keep=False)
        except TypeError as error:
            reason = f"its text is not valid Unicode: {error}"
        if reason is not None:
            raise Unavailable(f"the spool cannot take it ({reason}). Send it again.")

    def sync(self) -> None:
        """Write what could not be written before, and flush to the disk. The background thread calls it."""
        with self._guard:
            if self._broken is not None:
                self._write_backlog()
            dirty, self._dirty = self._dirty, False
            finished, self._finished = self._finished, []
            current = os.dup(self._file) if dirty else -1
        try:
            for file in [*finished, current]:
                if file >= 0:
                    os.fsync(file)
        except OSError as error:
            logger.error("cannot flush the spool: %s", error)
            with self._guard:
                self._broken = error.strerror or str(error)
                self._dirty = True
        finally:
            for file in [*finished, current]:
                if file >= 0:
                    os.close(file)

    def close(self) -> None:
        """Flush, then release the lock. The deliverer removes the files once it has delivered them."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._syncer.join()
        self.sync()
        if self._backlog:
            logger.critical("%d usage records could not be written to the spool and are lost", len(self._backlog))
        os.close(self._file)
        self._file = -1  # so that a late record fails instead of landing in a file that got the same number
        os.close(self._lock_file)

    def _write(self, line: bytes, *, keep: bool) -> str | None:
        """Append a line; the reason when that is not possible, and then the line is kept for later if it must not be lost."""
        with self._guard:
            if self._broken is None:
                try:
                    self._append(line)
                    return None
                except OSError as error:
                    logger.error("cannot write to the spool: %s", error)
                    self._broken = error.strerror or str(error)
            if keep:
                self._backlog.append(line)
            return self._broken

    def _append(self, line: bytes) -> None:
        """One write(2); half a line is taken back, or left behind as the torn end of a finished segment."""
        if self._size + len(line) > self._segment_bytes and self._size:
            self._start_segment()
        written = os.write(self._file, line)
        if written != len(line):
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self._start_segment()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._dirty = True

    def _write_backlog(self) -> None:
        try:
            while self._backlog:
                self._append(self._backlog[0])
                del self._backlog[0]
            # An empty write proves nothing, so the next hold finds out whether the disk has room again.
            self._broken = None
        except OSError as error:
            self._broken = error.strerror or str(error)

    def _start_segment(self) -> None:
        path = self._folder / f"{self.writer}.{self._number + 1:06d}.spool"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            self._finished.append(self._file)
        self._finished.append(
            os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        )  # so that the new name is flushed, too
        self._file, self._size, self._number = file, 0, self._number + 1
        self._began = time.monotonic()

    def _end_old_segment(self) -> None:
        with self._guard:
            if self._broken is not None or not self._size:
                return
            try:
                self._start_segment()
            except OSError as error:  # the old one goes on for as long again
                self._began = time.monotonic()
                logger.warning("cannot start a new segment of the spool: %s", error.strerror)

    def _sync_until_stopped(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            if self._size and time.monotonic() - self._began > self._segment_seconds:
                self._end_old_segment()
            if self._dirty or self._finished or self._broken is not None:
                self.sync()
