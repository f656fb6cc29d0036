"""Read single fields of a request body; a wrong type or range is refused with the field's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from local_engine.errors import InvalidJson, InvalidRequest


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request body."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidJson(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def valid_unicode(text: str, where: str) -> str:
    """JSON can spell half a surrogate pair, which is no character and has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{where} is not valid Unicode: {error}", param=where) from error
    return text


def flag(body: Mapping[str, Any], name: str) -> bool:
    """True or false; false when it is not there."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"{name} is {value!r}, expected true or false", param=name)


def integer(body: Mapping[str, Any], name: str, lowest: int, highest: int | None = None) -> int | None:
    """A whole number in a range; None when it is not there."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise InvalidRequest(f"{name} is {value!r}, expected an integer", param=name)
    if value < lowest or (highest is not None and value > highest):
        allowed = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise InvalidRequest(f"{name} is {value!r}, expected {allowed}", param=name)
    return value


def number(body: Mapping[str, Any], name: str, default: float, lowest: float, highest: float) -> float:
    """A finite number in a range, or the default."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InvalidRequest(f"{name} is {value!r}, expected a number", param=name)
    if not lowest <= value <= highest:
        raise InvalidRequest(f"{name} is {value!r}, expected {lowest} to {highest}", param=name)
    return float(value)


def model_name(body: Mapping[str, Any]) -> str:
    """The model asked for."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("model must be a non-empty string", param="model")
    return model
