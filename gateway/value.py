"""A dataclass for what is made anew with every request: frozen to the type checker and not at run time.

A dataclass that is frozen at run time sets each field with a call, which was a twentieth of a routing decision. The same as
`router_models.value`, as neither package stands on the other's small parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots whose fields mypy lets nobody set. It has no hash."""
    return dataclass(slots=True)(cls)


if TYPE_CHECKING:

    @value
    class _Checked:
        number: int

    # Should mypy ever let this pass, it says that the comment is not needed.
    _Checked(1).number = 2  # type: ignore[misc]
