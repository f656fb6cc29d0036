"""The messages of a chat, as chat templates expect them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from local_engine.errors import InvalidRequest, UnsupportedParameter
from local_engine.wire.fields import valid_unicode

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def parse_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages with their content as text, `developer` as the template's `system`, arguments of calls as objects."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a non-empty list", param="messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where} must be an object, got {type(message).__name__}", param=where)
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}.role is {role!r}, expected one of {', '.join(_ROLES)}", param=f"{where}.role")
    parsed = {**message, "role": "system" if role == "developer" else role, "content": _content(message, where)}
    if not message.get("tool_calls"):
        parsed.pop("tool_calls", None)  # templates ask whether it is there
    elif role == "assistant":
        parsed["tool_calls"] = _calls(message["tool_calls"], f"{where}.tool_calls")
    return parsed


def _content(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return ""
    if isinstance(content, str):
        return valid_unicode(content, f"{where}.content")
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content must be text or a list of parts", param=f"{where}.content")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise UnsupportedParameter(
                f"{where}.content has a part of type {kind!r}: this engine reads text only", param=f"{where}.content"
            )
        texts.append(part[kind])
    return valid_unicode("".join(texts), f"{where}.content")


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Calls made before. Their arguments come as JSON text; templates write them with `tojson`, so they become objects."""
    if not isinstance(value, list):
        raise InvalidRequest(f"{where} must be a list", param=where)
    calls = []
    for index, call in enumerate(value):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequest(
                f"{where}[{index}] must be {{'id': ..., 'type': 'function', 'function': {{'name': ..., 'arguments': ...}}}}",
                param=f"{where}[{index}]",
            )
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):  # a broken call of the model's own, told as it was
                valid_unicode(arguments, f"{where}[{index}].function.arguments")
        calls.append({**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return calls
