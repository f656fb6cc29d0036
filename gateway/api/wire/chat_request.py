"""Reads a chat completion request: checks what Penstock relies on, passes every other OpenAI field through untouched."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, get_args

import orjson

from gateway.chat.request import ChatRequest, Options
from gateway.errors import InvalidJson, InvalidValue, UnknownOption
from gateway.money import parse_usd
from gateway.types import TIERS, Mode

OPTIONS = (
    "mode", "tier", "max_cost_usd", "min_quality", "local_only", "regions", "strategy", "samples", "session_id", "tags", "user",
    "cache",
)  # fmt: skip
OPTION_HEADERS = {f"x-penstock-{name.replace('_', '-')}".encode(): name for name in OPTIONS}
MAX_N = 128
MAX_TOKENS = 10_000_000
"""More than any model writes; keeps every hold within 64 bits."""
MAX_TAGS = 20
MAX_LABEL = 200
MAX_USER = 512
"""OpenAI's fields for the end user have no such limit; what is longer cannot be looked up quickly."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse_chat_request(
    raw: bytes, headers: Mapping[bytes, bytes], *, request_id: str, received_at: float, started: float
) -> ChatRequest:
    """Turn a body into a ChatRequest. Raises InvalidJson, InvalidValue or UnknownOption naming the field."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidJson(f"The body must be a JSON object, not {_kind(body)}.")
    own = body.pop("penstock", None)
    options = _options(own, _option_headers(headers))
    model = body.get("model")
    if not isinstance(model, str) or not model:
        _refuse("model", model, "the name of a model, a tier, or 'auto'")
    stream = body.get("stream", False)
    if stream is None:
        stream = False
    if not isinstance(stream, bool):
        _refuse("stream", stream, "true or false")
    for name in ("max_tokens", "max_completion_tokens"):
        _whole(body, name, least=1, most=MAX_TOKENS)
    _whole(body, "n", least=1, most=MAX_N)
    return ChatRequest(
        request_id=request_id,
        body=body,
        model=model,
        messages=_messages(body.get("messages")),
        stream=stream,
        include_usage=_include_usage(body.get("stream_options"), stream),
        options=options,
        end_user=options.user or _end_user(body),
        received_at=received_at,
        started=started,
        size=len(raw),
    )


def _end_user(body: dict[str, Any]) -> str | None:
    """Whom the request is for, by OpenAI's fields: `safety_identifier` takes the place of the older `user`."""
    found = None
    for name in ("user", "safety_identifier"):
        value = body.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str) or len(value) > MAX_USER or _CONTROL.search(value):
            _refuse(name, value, f"a string of at most {MAX_USER} characters without control characters")
        found = value
    return found


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        _refuse("messages", messages, "a list with at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            _refuse(f"messages[{index}]", message, "an object with a role and a content")
        if not isinstance(message.get("role"), str):
            _refuse(f"messages[{index}].role", message.get("role"), "a string such as 'user'")
        content = message.get("content")
        if not (content is None or isinstance(content, str) or _is_parts(content)):
            _refuse(f"messages[{index}].content", content, "a string, null, or a list of content parts")
    return messages


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(part, dict) for part in content)


def _include_usage(stream_options: Any, stream: bool) -> bool:
    if stream_options is None:
        return False
    if not isinstance(stream_options, dict):
        _refuse("stream_options", stream_options, 'an object such as {"include_usage": true}')
    if not stream:
        raise InvalidValue("stream_options is only allowed when stream is true.", param="stream_options")
    return bool(stream_options.get("include_usage"))


def _option_headers(headers: Mapping[bytes, bytes]) -> dict[str, bytes]:
    given = {}
    for header, value in headers.items():
        if header.startswith(b"x-penstock-"):
            name = OPTION_HEADERS.get(header)
            if name is None:
                raise _unknown_option(header.decode("latin-1"), [known.decode() for known in OPTION_HEADERS])
            given[name] = value
    return given


def _unknown_option(name: str, known: Sequence[str]) -> UnknownOption:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownOption(f"Unknown option {name!r}.{hint} Known options: {', '.join(known)}.", param=name)


def _options(own: Any, from_headers: dict[str, bytes]) -> Options:
    if own is None and not from_headers:
        return Options()
    if own is not None and not isinstance(own, dict):
        _refuse("penstock", own, "an object")
    for name in own or {}:
        if name not in OPTIONS:
            raise _unknown_option(str(name), OPTIONS)
    given: dict[str, Any] = {name: value.decode("latin-1") for name, value in from_headers.items()}
    given.update(own or {})
    if isinstance((own or {}).get("regions"), str):  # in a header it can only be a text
        _refuse("penstock.regions", given["regions"], f"a list of 1 to {MAX_TAGS} regions")
    checked = {name: _READERS[name](value) for name, value in given.items() if value is not None}
    return Options(**{_FIELDS.get(name, name): value for name, value in checked.items() if value is not None})


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        _refuse(f"penstock.{name}", value, f"one of {', '.join(known)}")
    return value


def _read_cost(value: Any) -> int:
    try:
        return parse_usd(value, "penstock.max_cost_usd")
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="penstock.max_cost_usd") from None


def _read_quality(value: Any) -> float:
    try:
        quality = float(value)
    except (TypeError, ValueError):
        quality = -1.0
    if isinstance(value, bool) or not 0 <= quality <= 1:
        _refuse("penstock.min_quality", value, "a number from 0 to 1")
    return quality


def _read_label(name: str, value: Any, most: int = MAX_LABEL) -> str:
    # A NUL, for one, cannot be stored in PostgreSQL.
    if not isinstance(value, str) or not 0 < len(value) <= most or _CONTROL.search(value):
        _refuse(f"penstock.{name}", value, f"a string of 1 to {most} characters without control characters")
    return value


def _read_tags(value: Any) -> tuple[str, ...]:
    tags = [tag.strip() for tag in value.split(",")] if isinstance(value, str) else value
    if not isinstance(tags, list) or len(tags) > MAX_TAGS:
        _refuse("penstock.tags", value, f"a list of at most {MAX_TAGS} strings")
    return tuple(dict.fromkeys(_read_label("tags", tag) for tag in tags))


def _read_regions(value: Any) -> frozenset[str]:
    regions = [region.strip() for region in value.split(",")] if isinstance(value, str) else value
    if not isinstance(regions, list) or not 0 < len(regions) <= MAX_TAGS:
        _refuse("penstock.regions", value, f"a list of 1 to {MAX_TAGS} regions")
    return frozenset(_read_label("regions", region) for region in regions)


def _read_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool) and value not in ("true", "false"):
        _refuse(f"penstock.{name}", value, "true or false")
    return value in (True, "true")


def _read_strategy(value: Any) -> None:
    if value != "single":
        _refuse("penstock.strategy", value, "'single', the only strategy of this version")


def _read_samples(value: Any) -> None:
    if value not in (1, "1") or isinstance(value, bool):
        _refuse("penstock.samples", value, "1, as 'single' is the only strategy of this version")


def _read_cache(value: Any) -> None:
    if value not in (True, False, "on", "off", "true", "false"):
        _refuse("penstock.cache", value, "true or false")


_READERS: dict[str, Callable[[Any], Any]] = {
    "mode": lambda value: _one_of("mode", value, get_args(Mode)),
    "tier": lambda value: _one_of("tier", value, TIERS),
    "max_cost_usd": _read_cost,
    "min_quality": _read_quality,
    "local_only": lambda value: _read_flag("local_only", value),
    "regions": _read_regions,
    "strategy": _read_strategy,
    "samples": _read_samples,
    "session_id": lambda value: _read_label("session_id", value),
    "tags": _read_tags,
    "user": lambda value: _read_label("user", value, MAX_USER),
    "cache": _read_cache,
}
"""How each option is read. strategy, samples and cache are checked only: this version has one answer to each."""
_FIELDS = {"max_cost_usd": "max_cost"}


def _whole(body: dict[str, Any], name: str, *, least: int, most: int | None = None) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        _refuse(name, value, f"a whole number of at least {least}" + (f" and at most {most}" if most else ""))


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    shown = "is missing" if value is None else f"is {_short(value)}"
    raise InvalidValue(f"{name} {shown}; it must be {expected}.", param=name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number or boolean")
