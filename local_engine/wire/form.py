"""Which form an answer must have: OpenAI's response_format, or vLLM's structured_outputs and guided_* fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from local_engine.errors import InvalidRequest, UnsupportedParameter
from local_engine.structured.grammar import MAX_CHOICES, AnswerForm, json_form
from local_engine.wire.fields import valid_unicode

_KINDS = ("json", "json_object", "regex", "choice", "grammar")


def parse_form(body: Mapping[str, Any]) -> AnswerForm | None:
    """The one form asked for, None for free text. Raises InvalidRequest for two, and for what cannot be one."""
    found = [form for form in (_response_format(body), *_structured(body)) if form is not None]
    if len(found) > 1:
        names = ", ".join(form.param for form in found)
        raise InvalidRequest(f"an answer can have one form, got {names}", param=found[1].param)
    return found[0] if found else None


def _response_format(body: Mapping[str, Any]) -> AnswerForm | None:
    value = body.get("response_format")
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return json_form({"type": "object"}, "response_format")
    if kind != "json_schema":
        raise UnsupportedParameter(
            f"response_format is {value!r}, expected type 'text', 'json_object' or 'json_schema'",
            param="response_format",
        )
    described = value.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        raise InvalidRequest(
            "response_format.json_schema must be {'name': ..., 'schema': {...}, 'strict': ...}", param="response_format"
        )
    return json_form(described["schema"], "response_format", lenient=described.get("strict") is not True)


def _structured(body: Mapping[str, Any]) -> list[AnswerForm]:
    nested = body.get("structured_outputs")
    if nested is not None and not isinstance(nested, dict):
        raise InvalidRequest("structured_outputs must be an object", param="structured_outputs")
    fields = {f"guided_{kind}": (kind, body.get(f"guided_{kind}")) for kind in _KINDS}
    fields |= {f"structured_outputs.{kind}": (kind, (nested or {}).get(kind)) for kind in _KINDS}
    if (nested or {}).get("structural_tag") is not None or body.get("structural_tag") is not None:
        raise UnsupportedParameter(
            "structural_tag is not available from this engine: use a grammar", param="structured_outputs"
        )
    unknown = sorted(set(nested or {}) - {*_KINDS, "structural_tag"})
    if unknown:
        raise InvalidRequest(
            f"structured_outputs has {unknown[0]!r}, expected one of {', '.join(_KINDS)}", param="structured_outputs"
        )
    return [_form(kind, value, name) for name, (kind, value) in fields.items() if value not in (None, False)]


def _form(kind: str, value: Any, name: str) -> AnswerForm:
    if kind == "json_object":
        return json_form({"type": "object"}, name)
    if kind == "json":
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise InvalidRequest(f"{name} is not valid JSON: {error}", param=name) from error
        return json_form(value, name)
    if kind == "choice":
        if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
            raise InvalidRequest(f"{name} must be a non-empty list of non-empty strings", param=name)
        if len(value) > MAX_CHOICES:
            raise InvalidRequest(f"{name} may hold {MAX_CHOICES} choices, got {len(value)}", param=name)
        return AnswerForm("choice", json.dumps([valid_unicode(each, name) for each in value], ensure_ascii=False), name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be a non-empty string", param=name)
    return AnswerForm("regex" if kind == "regex" else "grammar", valid_unicode(value, name), name)
