"""Reads the repository's own Python files: which there are, what they import, which functions they hold."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gateway", "router_models", "local_engine", "migrations")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, with the name that is taken from it, and where."""

    module: str
    line: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method with its first and last line."""

    name: str
    line: int
    lines: int


def python_files(*folders: str) -> list[Path]:
    """All Python files under these top-level folders, as paths relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[Import]:
    """Everything a file imports, at the top, inside functions, under TYPE_CHECKING, or by name through importlib."""
    found: list[Import] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.append(Import(name.value, node.lineno))
    return found


def attributes(path: Path) -> list[tuple[str, int]]:
    """Every dotted attribute a file reads, such as `os.environ` or `connection.commit`, with its line."""
    return [(ast.unparse(node), node.lineno) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)]


def functions(path: Path) -> list[Function]:
    """Every function and method of a file, nested ones too."""
    return [
        Function(node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def is_within(module: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies under it."""
    return module == prefix or module.startswith(prefix + ".")


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = path.parent.parts
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
