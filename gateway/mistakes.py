"""What is wrong in a document that somebody typed, in the words of this house instead of the validator's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

Location = Sequence[str | int]


def unknown_key(shown: str, location: Location, section: Any) -> str:
    """Names a key that a section does not have and the nearest one that it has; `section` is the whole document's shape."""
    known = keys_at(location, section)
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
    return f"unknown key {shown!r}; {hint}"


def foremost(problems: Sequence[Any]) -> Any:
    """The one to speak of where only one can be: a mistyped key before what is missing because of it."""
    return next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])


def words(problem: Mapping[str, Any]) -> str:
    """What is wrong with one value."""
    kind = problem["type"]
    if kind == "missing":
        return "is required"
    if kind in {"tuple_type", "list_type", "set_type", "frozen_set_type"}:
        return "must be a list"
    if kind in {"dict_type", "model_type", "model_attributes_type"}:
        return "must be an object with keys"
    if kind == "too_short":
        return f"must have at least {problem['ctx']['min_length']}, not {problem['ctx']['actual_length']}"
    return str(problem["msg"]).removeprefix("Value error, ")


def given(problem: Mapping[str, Any]) -> str:
    """The value, as it was typed."""
    value = problem.get("input")
    return str(value) if isinstance(value, Decimal) else repr(value)


def keys_at(location: Location, section: Any) -> list[str]:
    """The known keys of the section that holds `location`; none where it is no section."""
    inside = section_of(section)
    for part in location[:-1]:
        if inside is not None and isinstance(part, str) and part in inside.model_fields:
            inside = section_of(inside.model_fields[part].annotation) or inside
    return [field.alias or name for name, field in inside.model_fields.items()] if inside is not None else []


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a type is or has inside."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := section_of(argument):
            return found
    return None
