r"""The final answer of a reply, in a form that can be compared: number, option letter, JSON, tool calls, short text (pure).

What is looked for, the first that is found: tool calls; JSON, bare or in a fence; `\boxed{...}`; `#### ...`; "answer: ..." or
"answer is ..."; a text that is short altogether; a number in the last line. Longer free text has no final answer.

Texts come from models, so everything here takes time in proportion to their length: lines are walked through, not matched.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import orjson

Kind = Literal["calls", "json", "number", "letter", "text"]

SHORT_WORDS = 6
"""A text of at most so many words is its own final answer."""
MAX_TEXT = 65_536
"""Characters that are looked through; of a longer text, the last ones."""
LONGEST_PIECE = 60
"""Characters that are brought into normal form at once: that sorts marks upon one letter, in the square of their number."""

_PIECE = re.compile(rf"\S{{1,{LONGEST_PIECE}}}|\s{{1,{LONGEST_PIECE}}}")
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_HASHES = re.compile(r"^#### *(.+)$", re.MULTILINE)
_SAID = re.compile(r"\banswer\b(?:\s+is)?\s*:?\**\s*:?\s*([^\n]{1,200})", re.IGNORECASE)
_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:[,\u202f\u00a0]\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+−]?\.\d+")
_LETTER = re.compile(r"[(\[]([A-Ja-j])[)\]](?:[.:]?\s.*)?|([A-Ja-j])(?:[.:)](?:\s.*)?)?")
_MARKS = re.compile(r"[*_`$\"'“”‘’]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said in its first choice. `calls` are tool calls as (name, arguments); `whole`: not cut at a limit."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Final:
    """A final answer. Two are the same when kind and value are."""

    kind: Kind
    value: str


def answer_of(payload: Mapping[str, Any]) -> Answer:
    """The first choice of a whole chat completion."""
    choice = (payload.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    return Answer(
        _text(message.get("content")),
        tuple((str(call.get("name", "")), str(call.get("arguments", ""))) for call in calls),
        choice.get("finish_reason") != "length",
    )


def answer_of_stream(events: bytes) -> Answer:
    """The first choice of a stream, from the bytes of its events."""
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    whole = True
    for line in events.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            choices = orjson.loads(line[5:]).get("choices") or []
        except (orjson.JSONDecodeError, AttributeError):
            continue
        for choice in choices:
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            texts.append(_text(delta.get("content")))
            for call in delta.get("tool_calls") or ():
                part = calls.setdefault(call.get("index", 0), ["", ""])
                function = call.get("function") or {}
                part[0] += function.get("name") or ""
                part[1] += function.get("arguments") or ""
            whole = whole and choice.get("finish_reason") != "length"
    return Answer("".join(texts), tuple((name, arguments) for name, arguments in calls.values()), whole)


def same_answer(one: Answer, other: Answer) -> bool | None:
    """Whether two replies come to the same. None when they cannot be compared: one has no final answer or was cut, a
    number stands against a text, or one short text only says more than the other.
    """
    first, second = final_answer(one), final_answer(other)
    if first is None or second is None or first.kind != second.kind:
        return None
    if first.kind == "text" and first != second:
        words, others = set(first.value.split()), set(second.value.split())
        return None if words <= others or others <= words else False
    return first == second


def final_answer(answer: Answer) -> Final | None:
    """The final answer of a reply; None when it has none."""
    if not answer.whole:
        return None
    if answer.calls:
        calls = sorted(f"{name} {_canonical(arguments) or arguments.strip()}" for name, arguments in answer.calls)
        return Final("calls", "\n".join(calls))
    text = normal_form(answer.text[-MAX_TEXT:]).strip()
    for candidate in (text, *reversed(fenced_in(text))):
        if candidate[:1] in ("{", "[") and (value := _canonical(candidate)) is not None:
            return Final("json", value)
    for pattern in (_BOXED, _HASHES, _SAID):
        if (found := pattern.findall(text)) and (final := _short(found[-1].split(". ")[0])) is not None:
            return final
    if (final := _short(text)) is not None:
        return final
    numbers = _NUMBER.findall(text.splitlines()[-1]) if text else []
    return Final("number", value) if numbers and (value := _number(numbers[-1])) is not None else None


def fenced_in(text: str) -> list[str]:
    """What stands between lines of three backticks, the first of which may say `json`. Fences of other languages are left
    out, as is one that nobody closed.
    """
    found: list[str] = []
    inside: list[str] | None = None
    wanted = False
    for line in text.split("\n"):
        mark = line.strip()
        if inside is None:
            if mark.startswith("```") and "`" not in mark[3:]:
                inside, wanted = [], mark[3:].strip().lower() in ("", "json")
        elif mark != "```":
            inside.append(line)
        else:
            if wanted:
                found.append("\n".join(inside).strip())
            inside = None
    return found


def normal_form(text: str) -> str:
    """NFKC, word by word."""
    return text if text.isascii() else _PIECE.sub(lambda piece: unicodedata.normalize("NFKC", piece[0]), text)


def _short(text: str) -> Final | None:
    """A short text as a number, a letter or itself; None when it is empty or long."""
    text = _MARKS.sub("", text).replace("\\%", "%").strip().rstrip(".!?;,").strip()
    if letter := _LETTER.fullmatch(text):
        return Final("letter", (letter[1] or letter[2]).upper())
    words = text.split()
    if not 0 < len(words) <= SHORT_WORDS:
        return None
    numbers = _NUMBER.findall(text)
    if len(numbers) == 1 and (value := _number(numbers[0])) is not None:
        return Final("number", value)
    plain = re.sub(r"[^\w\s%/+.-]", " ", text.casefold())
    return Final("text", " ".join(plain.split()))


def _number(text: str) -> str | None:
    """A number in one form, whatever its separators and trailing zeros."""
    try:
        value = Decimal(re.sub(r"[,\u202f\u00a0]", "", text.replace("−", "-")))
    except InvalidOperation:
        return None
    return format(value.normalize(), "E") if value else "0"


def _canonical(text: str) -> str | None:
    """JSON with sorted keys; None for what is not JSON."""
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return None


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""
