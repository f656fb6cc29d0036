"""What the text of the repository may not hold: paths of one machine, registry hosts, files that do not say what they are."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.source import ROOT, python_files, tree

MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:work|root|farm|tmp)/|(?<![\w.~-])/opt/(?:wheels|pypi)|/home/[a-z]")
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|deb\.debian\.org|archive\.ubuntu\.com")
NOT_PROSE = {".gguf", ".png", ".npz", ".npy", ".woff2", ".ico", ".db", ".bin"}

EXCEPTIONS: dict[str, str] = {
    "tests/house/test_text.py": "names what it looks for",
    "LICENSE": "is the licence's own text",
}


def tracked() -> list[Path]:
    """Every text file that is or would be committed. Skips where the checkout is not a git repository."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout to tell the repository's files from others")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    paths = [Path(name) for name in names if name and name not in EXCEPTIONS]
    return [path for path in paths if path.suffix not in NOT_PROSE and (ROOT / path).is_file()]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern occurs, as file:line: text."""
    found = []
    for path in tracked():
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        found += [
            f"{path}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    return found


def test_no_file_holds_a_path_of_one_machine() -> None:
    found = lines_with(MACHINE_PATHS)
    assert not found, "a path of one machine means nothing on another; use a relative one or a setting:\n" + "\n".join(
        found
    )


def test_no_file_names_a_registry_host() -> None:
    found = lines_with(REGISTRIES)
    assert not found, "where packages come from is the installer's choice, not the repository's:\n" + "\n".join(found)


def test_every_python_file_begins_with_what_it_is_for() -> None:
    silent = []
    for path in python_files("gateway", "router_models", "local_engine", "migrations", "benchmarks", "tests"):
        docstring = ast.get_docstring(tree(path), clean=False)
        first = (ROOT / path).read_text(encoding="utf-8").split("\n", 1)[0]
        if not docstring or not first.startswith(('"""', 'r"""')) or not docstring.split("\n")[0].strip():
            silent.append(str(path))
    assert not silent, (
        f"begin each file with one sentence: what it is for and, where it matters, what happens on failure: {silent}"
    )


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc", "base_utils"}
    found = [
        str(path)
        for path in python_files("gateway", "router_models", "local_engine", "benchmarks", "tests")
        if empty & set(path.with_suffix("").parts)
    ]
    assert not found, f"a folder is a noun, a file a smaller noun; name these after what they hold: {found}"


def test_no_folder_inside_tests_is_a_package() -> None:
    inits = [path for path in python_files("tests") if path.name == "__init__.py"]
    found = sorted(str(path) for path in inits if path.parent.name != "tests")
    assert not found, f"tests/gateway as a package would be imported as `gateway` and hide the real one; remove {found}"
