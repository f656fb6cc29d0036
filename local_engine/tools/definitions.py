"""The tools a request offers and whether one must be called, checked and made into a prompt and, where forced, a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from local_engine.errors import InvalidRequest
from local_engine.structured.grammar import AnswerForm, json_form
from local_engine.wire.fields import valid_unicode

MAX_TOOLS = 128
MAX_CALLS = 16
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
Choice = Literal["none", "auto", "forced"]

_INSTRUCTION = """\
You may call functions to help with the request. Their signatures:
<tools>
{tools}
</tools>
To call a function write a JSON object with its name and its arguments between <tool_call> and </tool_call>:
<tool_call>
{{"name": "function name", "arguments": {{"argument": "value"}}}}
</tool_call>"""
_FORCED = "\nAnswer with nothing but {what}."


@dataclass(frozen=True, slots=True)
class ToolUse:
    """`tools` as OpenAI writes them. `forced`: the names of which one must be called, empty when the model may choose."""

    tools: tuple[Mapping[str, Any], ...]
    forced: tuple[str, ...]
    parallel: bool

    @property
    def names(self) -> frozenset[str]:
        """Names of the offered functions."""
        return frozenset(str(tool["function"]["name"]) for tool in self.tools)


def parse_tools(body: Mapping[str, Any]) -> ToolUse | None:
    """The tools of a request; None when there are none or none may be called. Raises InvalidRequest."""
    for name in ("functions", "function_call"):
        if body.get(name):
            raise InvalidRequest(f"{name} is the old form: use tools and tool_choice", param=name)
    tools = _tools(body.get("tools"))
    parallel = body.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise InvalidRequest(
            f"parallel_tool_calls is {parallel!r}, expected true or false", param="parallel_tool_calls"
        )
    choice = body.get("tool_choice")
    if choice in (None, "auto", "none"):
        return ToolUse(tools, (), parallel is not False) if tools and choice != "none" else None
    names = tuple(str(tool["function"]["name"]) for tool in tools)
    if choice == "required":
        if not tools:
            raise InvalidRequest("tool_choice is 'required' but tools is empty", param="tool_choice")
        return ToolUse(tools, names, parallel is not False)
    wanted = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    wanted = wanted.get("name") if isinstance(wanted, dict) else None
    if wanted not in names:
        raise InvalidRequest(
            f"tool_choice is {choice!r}, expected 'none', 'auto', 'required' or {{'type': 'function', 'function': "
            f"{{'name': NAME}}}} with a name from tools ({', '.join(names) or 'which is empty'})",
            param="tool_choice",
        )
    return ToolUse(tools, (wanted,), parallel=False)


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise InvalidRequest(f"tools must be a list of at most {MAX_TOOLS} tools", param="tools")
    seen: set[str] = set()
    for index, tool in enumerate(value):
        where = f"tools[{index}]"
        function = (
            tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
        )
        if not isinstance(function, dict):
            raise InvalidRequest(f"{where} must be {{'type': 'function', 'function': {{...}}}}", param=where)
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in seen:
            raise InvalidRequest(
                f"{where}.function.name is {name!r}, expected 1 to 64 letters, digits, '_', '-' or '.', once in the list",
                param=f"{where}.function.name",
            )
        seen.add(name)
        parameters = function.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequest(
                f"{where}.function.parameters must be a JSON schema", param=f"{where}.function.parameters"
            )
    valid_unicode(json.dumps(value, ensure_ascii=False), "tools")
    return tuple(value)


def call_form(use: ToolUse) -> AnswerForm:
    """What an answer that must call looks like: one `{"name", "arguments"}`, or a list of them where several may be made."""
    calls = []
    definitions: dict[str, Any] = {}
    for name in use.forced:
        function = next(tool["function"] for tool in use.tools if tool["function"]["name"] == name)
        place = f"tool_{len(definitions)}"
        schema = function.get("parameters") or {}
        if "type" not in schema and not {"$ref", "anyOf", "oneOf", "allOf"} & schema.keys():
            schema = {**schema, "type": "object"}
        definitions[place] = _moved(schema, f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{place}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    call = calls[0] if len(calls) == 1 else {"anyOf": calls}
    whole = {"type": "array", "items": call, "minItems": 1, "maxItems": MAX_CALLS} if use.parallel else call
    return json_form({**whole, "$defs": definitions}, "tools", lenient=True)


def _moved(schema: Any, root: str, depth: int = 0) -> Any:
    """The schema with its references to itself (`#`, `#/...`) pointing below `root`, where it now lies."""
    if depth > 100:
        raise InvalidRequest("tools have a schema nested more than 100 levels deep", param="tools")
    if isinstance(schema, list):
        return [_moved(each, root, depth + 1) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, root, depth + 1) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = root + reference[1:]
    return moved


def instruct(messages: Sequence[Mapping[str, Any]], use: ToolUse | None) -> list[dict[str, Any]]:
    """The messages for a model whose template knows no tools: they are described in the system message, as are calls made.

    Tools are offered, called and answered in Hermes' form, which many models have seen.
    """
    told = [_without_roles(message) for message in messages]
    if use is None:
        return told
    text = _INSTRUCTION.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in use.tools))
    return _with_system(told, text)


def demand(messages: Sequence[Mapping[str, Any]], use: ToolUse) -> list[dict[str, Any]]:
    """The messages with the demand that a call be made, in the form the grammar will have it."""
    one = json.dumps({"name": " | ".join(use.forced), "arguments": {}})
    what = f"a JSON list of calls: [{one}, ...]" if use.parallel else f"one call as JSON: {one}"
    return _with_system(messages, _FORCED.format(what=what))


def _with_system(messages: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    copied = [dict(message) for message in messages]
    if copied and copied[0]["role"] == "system":
        copied[0]["content"] = f"{copied[0]['content']}\n\n{text}".strip()
        return copied
    return [{"role": "system", "content": text.strip()}, *copied]


def _without_roles(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] in ("tool", "function"):
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    written = "\n".join(
        "<tool_call>\n" + json.dumps(call["function"], ensure_ascii=False) + "\n</tool_call>" for call in calls
    )
    return {"role": message["role"], "content": f"{message['content']}\n{written}".strip()}
