"""Reads feedback on an answer: which request, how good from 0 to 1 (or good/bad, up/down), and maybe a comment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from gateway.errors import InvalidJson, InvalidValue, UnknownOption

FIELDS = ("request_id", "score", "label", "thumbs", "comment")
WORDS: Mapping[str, Mapping[str, float]] = {"label": {"good": 1.0, "bad": 0.0}, "thumbs": {"up": 1.0, "down": 0.0}}
MAX_COMMENT = 2000
MAX_BYTES = 64 * 1024
"""Of a body; whatever is longer is no feedback."""
MAX_ID = 100


@dataclass(frozen=True, slots=True)
class Given:
    """Feedback as it was sent, checked."""

    request_id: str
    score: float
    comment: str | None


def parse_feedback(raw: bytes) -> Given:
    """Read a body. Raises InvalidJson, InvalidValue or UnknownOption naming the field."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidJson("The body must be a JSON object with request_id and score.")
    for name in body:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownOption(
                f"Unknown field {_short(name)}.{hint} Known fields: {', '.join(FIELDS)}.", param=name[:100]
            )
    request_id = body.get("request_id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID:
        _refuse("request_id", request_id, "the x-penstock-request-id of an answer")
    return Given(request_id, _score(body), _comment(body.get("comment")))


def _score(body: dict[str, Any]) -> float:
    given = [name for name in ("score", *WORDS) if body.get(name) is not None]
    if len(given) != 1:
        several = f"{' and '.join(given)} are all given" if given else "none is given"
        raise InvalidValue(f"Give one of score, label and thumbs; {several}.", param=given[-1] if given else "score")
    name, value = given[0], body[given[0]]
    if name in WORDS:
        words = WORDS[name]
        if not isinstance(value, str) or value not in words:
            _refuse(name, value, " or ".join(repr(word) for word in words))
        return words[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        _refuse(name, value, "a number from 0 (bad) to 1 (good)")
    return float(value)


def _comment(comment: Any) -> str | None:
    if comment is None:
        return None
    if not isinstance(comment, str):
        _refuse("comment", comment, "a text")
    if len(comment) > MAX_COMMENT:
        raise InvalidValue(f"comment has {len(comment)} characters; at most {MAX_COMMENT} are taken.", param="comment")
    return comment.replace("\0", "\ufffd").strip() or None


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    shown = "is missing" if value is None else f"is {_short(value)}"
    raise InvalidValue(f"{name} {shown}; it must be {expected}.", param=name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
