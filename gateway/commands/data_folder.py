"""The data folder: where everything lies, one user at a time, secrets readable by their owner alone.

A folder that cannot be written, or that another process uses, is a StartupError before anything has started.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StartupError


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Names inside the data folder."""

    path: Path

    @property
    def spool(self) -> Path:
        """Usage events that have not reached the database yet."""
        return self.path / "spool"

    @property
    def weights(self) -> Path:
        """Model files."""
        return self.path / "weights"

    @property
    def built_in_config(self) -> Path:
        """The configuration of `penstock up` without a file of one's own; written again at each start."""
        return self.path / "built-in.yaml"

    @property
    def first_key(self) -> Path:
        """The secret of the first key, made by `penstock up`."""
        return self.path / "first-key"

    @property
    def admin_key(self) -> Path:
        """The secret of the admin API, made by `penstock up`."""
        return self.path / "admin-key"


def open_data_folder(path: Path) -> DataFolder:
    """Make the folder if needed and check that it can be written. Raises StartupError."""
    probe = path / f".write-test-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise StartupError(
            f"the data directory {str(path)!r} cannot be written ({_reason(error)}). "
            "Give a writable one with --data-dir or PENSTOCK_DATA_DIR."
        ) from error
    return DataFolder(path.resolve())


def lock_data_folder(folder: DataFolder) -> int:
    """Take the folder for this process; the lock is freed when the returned descriptor is closed or the process ends.

    Raises StartupError naming the process that has it.
    """
    descriptor = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise StartupError(
                f"the data directory {str(folder.path)!r} cannot be locked ({_reason(error)})."
            ) from error
        raise StartupError(
            f"the data directory {str(folder.path)!r} is in use by another Penstock (process {holder or 'unknown'}). "
            "Stop it first, or give this one a folder of its own with --data-dir."
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def read_secret_file(path: Path) -> str | None:
    """The secret in a file, or None when there is no such file or nothing in it."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{str(path)!r} cannot be read ({error}). Put it right or delete it.") from error


def write_secret_file(path: Path, secret: str) -> None:
    """Write a secret that only its owner can read; the file is whole or not there."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise StartupError(f"{str(path)!r} cannot be written ({_reason(error)}).") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
