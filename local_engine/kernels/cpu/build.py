"""Compile the C++ kernel for this machine's processor, once; a processor or a compiler that will not do raises NoKernel.

The library lies in a folder under a name made of its source, the compiler and the flags, so that another version or
another machine on the same disk gets its own. It is tried in a process of its own before it is used: instructions that
a machine claims and does not have cost a line in the log, not the engine. Who could write to the folder or the library
could run code in this process: both must be ours, and nobody else's to write.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
DEFAULT_FOLDER = Path("~/.penstock/kernels")
_NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "f16c", "fma")
_TILES = ("amx_tile", "amx_int8", "amx_bf16", "avx512_bf16")
_SECONDS = 180  # a compiler takes five; on a machine that is drowning we go without


class NoKernel(Exception):
    """Why there is no native kernel here, in one sentence; the torch path takes its place."""


@dataclass(frozen=True, slots=True)
class Target:
    """The compiler's flags for a processor, and whether they include AMX."""

    flags: tuple[str, ...]
    tiles: bool


def target_for(features: frozenset[str], tiles: bool = True) -> Target:
    """Flags for a processor with these features, named as in /proc/cpuinfo. Raises NoKernel."""
    missing = [name for name in _NEEDED if name not in features]
    if missing:
        raise NoKernel(f"this processor has no {', '.join(missing)}")
    tiles = tiles and all(name in features for name in _TILES)
    extra = [name for name in _TILES if name in features and (tiles or not name.startswith("amx"))]
    flags = [f"-m{name.replace('_', '-') if name.startswith('amx') else name.replace('_', '')}" for name in _NEEDED]
    flags += [f"-m{name.replace('_', '-') if name.startswith('amx') else name.replace('_', '')}" for name in extra]
    return Target((*flags, *(("-DPENSTOCK_AMX",) if tiles else ())), tiles)


def processor_features() -> frozenset[str]:
    """What /proc/cpuinfo says; nothing where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def find_compiler() -> str:
    """The path of a C++ compiler: what CXX names, else the usual ones. Raises NoKernel."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NoKernel("no C++ compiler was found (install g++ or clang++, or name one with CXX)")


def build(target: Target, folder: Path | None = None) -> Path:
    """The library for `target`, compiled and tried if it is not there yet. Raises NoKernel."""
    compiler = find_compiler()
    command = [compiler, "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-w", *target.flags]
    folder = folder or DEFAULT_FOLDER
    try:
        folder = folder.expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(folder)
        path = folder / f"cpu-{_fingerprint(command)}.so"
        if not path.exists():
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two engines that start together compile once
                if not path.exists():
                    _compile(command, path)
        _check_ours(path)
    except OSError as error:
        raise NoKernel(f"the kernel cannot be kept in {str(folder)!r}: {error.strerror}") from error
    except RuntimeError as error:  # of expanduser
        raise NoKernel(f"the kernel cannot be kept in {str(folder)!r}: {error}") from error
    return path


def _check_ours(path: Path) -> None:
    """Raise NoKernel for what another user owns or may write to."""
    found = path.stat()
    if found.st_uid != os.getuid():
        raise NoKernel(f"{str(path)!r} belongs to user {found.st_uid!r}, not to us ({os.getuid()!r}): remove it")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = oct(stat.S_IMODE(found.st_mode))
        raise NoKernel(f"{str(path)!r} has mode {mode}: others may write to it; remove it, or chmod go-w")


def _fingerprint(command: list[str]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    compiler = Path(command[0]).resolve().stat()
    digest.update(f"{compiler.st_size} {compiler.st_mtime_ns}".encode())
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:20]


def _compile(command: list[str], path: Path) -> None:
    """Compile beside `path`, try the result, move it there."""
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        _run([*command, "-o", str(draft), str(SOURCES / "library.cpp")], "the compiler")
        _run([sys.executable, "-m", "local_engine.kernels.cpu.trial", str(draft)], "the trial of the new kernel")
        draft.chmod(0o700)  # a umask may have left it to the group
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _run(command: list[str], what: str) -> None:
    try:
        root = str(SOURCES.parents[2])
        done = subprocess.run(  # noqa: S603  (the compiler, and this Python)
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NoKernel(f"{what} took more than {_SECONDS} seconds") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise NoKernel(f"{what} failed with status {done.returncode}: {words[0] if words else 'no message'}")
