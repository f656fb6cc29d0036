"""A dataclass for what is made anew with every request: frozen to the type checker and not at run time.

A dataclass that is frozen at run time sets each field with a call, which was a twentieth of a routing decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots whose fields mypy lets nobody set. It has no hash."""
    return dataclass(slots=True)(cls)
