"""Read OpenAI request bodies: every field that matters is checked, and a wrong one is refused with its name.

Unknown fields are ignored. Known fields that would change the answer but are not supported are refused, because
ignoring them would hand the caller something else than was asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_engine.errors import InvalidJson, InvalidRequest, UnsupportedParameter
from local_engine.request import SamplingDefaults, SamplingParams

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_CHOICES = 128
MAX_SALT_CHARACTERS = 1000
MAX_PRIORITY = 100
MAX_DEADLINE_SECONDS = 86400.0
COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_SMALLEST_TEMPERATURE = 1e-3  # below, dividing by it says nothing that greedy does not


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed request. `max_tokens` None means: the engine's default, or less where the context leaves less."""

    model: str
    messages: list[dict[str, Any]] | None
    prompt: str | list[int] | None
    max_tokens: int | None
    choices: int
    stream: bool
    include_usage: bool
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    frequency_penalty: float
    presence_penalty: float
    ignore_eos: bool
    cache_salt: str | None
    priority: int
    deadline_seconds: float | None

    def sampling(self, max_tokens: int, choice: int) -> SamplingParams:
        """Parameters of one choice; seeded choices differ from each other and repeat from call to call."""
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            stop=self.stop,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            ignore_eos=self.ignore_eos,
        )


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request body."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidJson(f"the body must be a JSON object, got {type(value).__name__}")
    return value


def parse_chat(body: Mapping[str, Any], defaults: SamplingDefaults) -> Call:
    """A chat completion request."""
    messages = parse_messages(body)
    limit = _integer(body, "max_completion_tokens", 1)
    if limit is None:
        limit = _integer(body, "max_tokens", 1)
    if body.get("logprobs"):
        raise UnsupportedParameter("logprobs are not available from this engine: leave the field out", param="logprobs")
    choice = body.get("tool_choice")
    if choice not in (None, "none", "auto"):
        raise UnsupportedParameter(
            f"tool_choice {choice!r} cannot be enforced by this engine: use 'auto' or 'none'", param="tool_choice"
        )
    return _call(body, defaults, messages=messages, prompt=None, max_tokens=limit)


def parse_completion(body: Mapping[str, Any], defaults: SamplingDefaults) -> Call:
    """A legacy completion request; one prompt, as text or token ids."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    is_ids = isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt)
    if not is_ids and not (isinstance(prompt, str) and prompt):
        raise InvalidRequest("prompt must be one non-empty string or one list of token ids", param="prompt")
    if isinstance(prompt, str):
        valid_unicode(prompt, "prompt")
    limit = _integer(body, "max_tokens", 1)
    if body.get("logprobs") is not None:
        raise UnsupportedParameter("logprobs are not available from this engine: leave the field out", param="logprobs")
    for name in ("echo", "suffix"):
        if body.get(name):
            raise UnsupportedParameter(f"{name} is not available from this engine: leave the field out", param=name)
    limit = COMPLETION_MAX_TOKENS if limit is None else limit
    return _call(body, defaults, messages=None, prompt=prompt, max_tokens=limit)


def parse_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages with their content as text, `developer` as the template's `system`."""
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
    return {**message, "role": "system" if role == "developer" else role, "content": _content(message, where)}


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


def valid_unicode(text: str, where: str) -> str:
    """JSON can spell half a surrogate pair, which is no character and has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{where} is not valid Unicode: {error}", param=where) from error
    return text


def _call(
    body: Mapping[str, Any],
    defaults: SamplingDefaults,
    *,
    messages: list[dict[str, Any]] | None,
    prompt: str | list[int] | None,
    max_tokens: int | None,
) -> Call:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("model must be a non-empty string", param="model")
    form = body.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type") != "text"):
        raise UnsupportedParameter(
            f"response_format {form!r} is not available from this engine: use {{'type': 'text'}}",
            param="response_format",
        )
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidRequest(f"stream_options must be an object, got {options!r}", param="stream_options")
    temperature = _number(body, "temperature", defaults.temperature, 0.0, 2.0)
    choices = _integer(body, "n", 1, MAX_CHOICES)
    top_k = _integer(body, "top_k", -1)
    return Call(
        model=model,
        messages=messages,
        prompt=prompt,
        max_tokens=max_tokens,
        choices=1 if choices is None else choices,
        stream=_flag(body, "stream"),
        include_usage=_flag(options, "include_usage"),
        temperature=0.0 if temperature < _SMALLEST_TEMPERATURE else temperature,
        top_p=_number(body, "top_p", defaults.top_p, 0.0, 1.0),
        top_k=defaults.top_k if top_k is None else max(0, top_k),
        seed=_integer(body, "seed", -(2**63), 2**63 - 1),
        stop=_stops(body),
        frequency_penalty=_number(body, "frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=_number(body, "presence_penalty", 0.0, -2.0, 2.0),
        ignore_eos=_flag(body, "ignore_eos"),
        cache_salt=_salt(body),
        priority=_integer(body, "priority", -MAX_PRIORITY, MAX_PRIORITY) or 0,
        deadline_seconds=_seconds(body),
    )


def _salt(body: Mapping[str, Any]) -> str | None:
    salt = body.get("cache_salt")
    if salt is None:
        return None
    if not isinstance(salt, str) or not 0 < len(salt) <= MAX_SALT_CHARACTERS:
        raise InvalidRequest(
            f"cache_salt must be a string of 1 to {MAX_SALT_CHARACTERS} characters: leave it out to share with all",
            param="cache_salt",
        )
    return valid_unicode(salt, "cache_salt")


def _seconds(body: Mapping[str, Any]) -> float | None:
    if body.get("deadline_seconds") is None:
        return None
    return _number(body, "deadline_seconds", 0.0, 0.0, MAX_DEADLINE_SECONDS)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("stop must be a non-empty string or a list of them", param="stop")
    if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise InvalidRequest(
            f"stop may hold {MAX_STOPS} strings of {MAX_STOP_CHARACTERS} characters, got {len(stops)}", param="stop"
        )
    return tuple(valid_unicode(stop, "stop") for stop in stops)


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"{name} is {value!r}, expected true or false", param=name)


def _integer(body: Mapping[str, Any], name: str, lowest: int, highest: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise InvalidRequest(f"{name} is {value!r}, expected an integer", param=name)
    if value < lowest or (highest is not None and value > highest):
        allowed = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise InvalidRequest(f"{name} is {value!r}, expected {allowed}", param=name)
    return value


def _number(body: Mapping[str, Any], name: str, default: float, lowest: float, highest: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"{name} is {value!r}, expected a number", param=name)
    if not lowest <= value <= highest:
        raise InvalidRequest(f"{name} is {value!r}, expected {lowest} to {highest}", param=name)
    return float(value)
