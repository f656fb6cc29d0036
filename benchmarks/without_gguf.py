"""Lets the engine be imported on a machine that lacks the reader of GGUF files, for benchmarks that read none."""

from __future__ import annotations

import sys
import types
from importlib.util import find_spec


class _Anything(type):
    """A class with every attribute, each its own name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Missing(types.ModuleType):
    """Has every name, each of which is good for nothing but being imported."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


if "gguf" not in sys.modules and find_spec("gguf") is None:
    for module in ("gguf", "gguf.constants", "gguf.quants"):
        sys.modules[module] = _Missing(module)
