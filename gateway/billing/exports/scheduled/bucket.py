"""Brings the folder of a finished export to an S3-compatible bucket: files first, the manifest last, so that no reader ever
sees half of an export as a whole one.

Objects that are there with their checksum are not sent again. A bucket that is missing, refuses or does not answer raises
StartupError with what it said; no message holds credentials.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.billing.exports.manifest import NAME, FileEntry
from gateway.billing.exports.sinks import sha256_of
from gateway.config_exports import S3
from gateway.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from obstore.store import S3Store

PART = 8 * 1024 * 1024
"""Larger files are sent in parts of this size, and appear when the last one has arrived."""
CONNECT_SECONDS = 5
RETRIES = 3
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d+)")
_SENT = "sha256"
"""The metadata of an object that says what its bytes hash to."""


class Bucket:
    """One bucket. `shown` names it in messages."""

    def __init__(self, bucket: str, s3: S3, secret: Callable[[str], str | None]) -> None:
        self.shown = f"s3://{bucket}" + (f" at {s3.endpoint}" if s3.endpoint else "")
        store = _store_class()
        known: dict[str, Any] = {
            name: _resolved(name, value, secret)
            for name in ("access_key_id", "secret_access_key")
            if (value := getattr(s3, name)) is not None
        }
        if s3.region is not None:
            known["region"] = s3.region
        if s3.endpoint is not None:
            known["endpoint"] = s3.endpoint
        path_style = s3.path_style if s3.path_style is not None else s3.endpoint is not None
        patience = timedelta(seconds=s3.timeout_seconds)
        self._store: S3Store = store(
            bucket,
            **known,
            virtual_hosted_style_request=not path_style,
            checksum_algorithm="SHA256",
            client_options={
                "allow_http": (s3.endpoint or "").startswith("http:"),
                "timeout": patience,
                "connect_timeout": min(patience, timedelta(seconds=CONNECT_SECONDS)),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": patience},
        )

    def send(self, folder: Path, prefix: str, entries: Sequence[FileEntry]) -> None:
        """Bring a finished export to `prefix`. A manifest that would be wrong meanwhile is taken away first."""
        manifest = FileEntry(NAME, "", 0, (folder / NAME).stat().st_size, sha256_of(folder / NAME), {})
        with self._explained():
            # Listing comes first: a refusal of it says why, which one of HEAD cannot.
            names = set(self._names(prefix))
            there = {entry.name for entry in (*entries, manifest) if entry.name in names and self._has(prefix, entry)}
            if len(there) > len(entries):
                return
            self._delete(prefix, names & {NAME})
            for entry in entries:
                if entry.name not in there:
                    self._put(folder, prefix, entry)
            self._delete(prefix, names - {NAME, *(entry.name for entry in entries)})
            self._put(folder, prefix, manifest)

    def _put(self, folder: Path, prefix: str, entry: FileEntry) -> None:
        import obstore

        path = f"{prefix}/{entry.name}"
        with (folder / entry.name).open("rb") as file:
            obstore.put(
                self._store, path, file, attributes={_SENT: entry.sha256}, use_multipart=entry.bytes > PART, chunk_size=PART,
                max_concurrency=2,
            )  # fmt: skip
        if not self._has(prefix, entry):
            raise StartupError(
                f"{self.shown} took {path} and does not have it whole; look at the bucket and run it again."
            )

    def _has(self, prefix: str, entry: FileEntry) -> bool:
        import obstore

        try:
            found = obstore.get(self._store, f"{prefix}/{entry.name}", options={"head": True})
        except FileNotFoundError:
            return False
        return found.meta["size"] == entry.bytes and found.attributes.get(_SENT) == entry.sha256

    def _names(self, prefix: str) -> Iterator[str]:
        """The names of the objects right under a prefix."""
        import obstore

        for found in obstore.list_with_delimiter(self._store, prefix)["objects"]:
            yield found["path"].rpartition("/")[2]

    def _delete(self, prefix: str, names: set[str]) -> None:
        import obstore

        for name in sorted(names):
            obstore.delete(self._store, f"{prefix}/{name}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise StartupError(f"the bucket {self.shown} cannot be written: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What the server said in one line, with what to do about the usual cases; the client's own text is long."""
    text = str(error)
    code, status = _CODE.search(text), _STATUS.search(text)
    said = code[1] if code else (f"status {status[1]}" if status else text.partition("\n")[0][:300])
    hints = {
        "NoSuchBucket": "the bucket does not exist; make it.",
        "InvalidAccessKeyId": "it does not know the access key; check access_key_id.",
        "SignatureDoesNotMatch": "the secret key is wrong; check secret_access_key.",
        "AccessDenied": "the key may not do that; it needs to get, put, list and delete objects under the prefix.",
    }
    return f"{said}: {hints[said]}" if said in hints else said


def _resolved(name: str, value: str, secret: Callable[[str], str | None]) -> str:
    if not value.startswith("env:"):
        return value
    found = secret(value.removeprefix("env:"))
    if found is None:
        raise ConfigError(f"s3.{name} is {value!r}, and that variable is not set.")
    return found


def _store_class() -> type[S3Store]:
    try:
        from obstore.store import S3Store
    except ModuleNotFoundError:
        raise ConfigError("S3 needs obstore, which is not installed: run pip install 'penstock[s3]'.") from None
    return S3Store
