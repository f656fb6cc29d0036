"""Files of at most 300 lines and functions under 60: what is longer is two things, and becomes the place nobody reads."""

from __future__ import annotations

from tests.house.source import PACKAGES, ROOT, functions, python_files

FILE_LINES = 300
FUNCTION_LINES = 60
FOLDERS = (*PACKAGES, "benchmarks", "tests")

LONG_FILES: dict[str, str] = {
    # file: why it may be longer
    "gateway/errors.py": "every error is in one tree on one page; it is a list and not a program",
}
LONG_FUNCTIONS: dict[str, str] = {
    # file::function: why it may be longer
}


def long_files() -> dict[str, int]:
    """Every file over the limit, with its length."""
    lengths = {
        path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in python_files(*FOLDERS)
    }
    return {path: length for path, length in lengths.items() if length > FILE_LINES}


def long_functions() -> dict[str, int]:
    """Every function at or over the limit, with its length. A migration lists tables and is not read as code."""
    return {
        f"{path.as_posix()}::{function.name}": function.lines
        for path in python_files(*FOLDERS)
        if path.parent.as_posix() != "migrations/versions"
        for function in functions(path)
        if function.lines >= FUNCTION_LINES
    }


def test_files_have_at_most_300_lines() -> None:
    broken = {path: length for path, length in long_files().items() if path not in LONG_FILES}
    assert not broken, f"split each along the nouns in it, or add it to LONG_FILES with a reason: {broken}"


def test_functions_have_fewer_than_60_lines() -> None:
    broken = {name: length for name, length in long_functions().items() if name not in LONG_FUNCTIONS}
    assert not broken, f"name the steps and call them, or add it to LONG_FUNCTIONS with a reason: {broken}"


def test_every_size_exception_is_still_needed() -> None:
    stale = sorted((set(LONG_FILES) - set(long_files())) | (set(LONG_FUNCTIONS) - set(long_functions())))
    assert not stale, f"remove these exceptions, nothing needs them any more: {stale}"
