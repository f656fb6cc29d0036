"""Grades a model's answer by the rule that came with the prompt, so that outcomes can be recorded without a judge.

A check is a mapping of rules, which must all hold: `any` or `all` (words that occur; an entry of `all` may be a list of
alternatives), `none` (words that do not), `number` (the one that is boxed or called the answer, else the last), `letter` (the
option that is named), `yes_or_no`, `most_words`. `read` says what a reader has to look for: no rule can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_models.errors import TrainingDataError

NEARLY = 1e-6
"""Relative difference that two numbers may have and still be equal."""

_DIGITS = r"(?:(?<!\d)-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_NUMBERS = (
    re.compile(rf"\\boxed\{{\s*\$?({_DIGITS})"),
    re.compile(rf"\banswer(?: is|:)?[^\w\n-]*({_DIGITS})", re.IGNORECASE),
    re.compile(rf"({_DIGITS})"),
)
# A capital letter of its own; an I that begins a sentence about oneself is none.
_LETTER = r"(?!I\s+[a-z])([A-J])(?![A-Za-z0-9'])"
_LETTERS = (
    re.compile(r"\\boxed\{\W*" + _LETTER),
    re.compile(
        r"\b(?i:answer|(?:correct|right|best) (?:option|choice))\b[^A-Za-z0-9\n]*"
        r"(?:(?i:is|would be|will be|must be|should be|i believe is|option|choice)\b[^A-Za-z0-9\n]*)*" + _LETTER
    ),
    re.compile(r"^\W*(?:(?i:option|choice)\W*)?(?!A\s+[a-z])" + _LETTER),
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MARKUP = re.compile(r"[*_`]")

Words = str | Sequence[str]


def grade(check: Mapping[str, Any], answer: str) -> float | None:
    """1.0 where every rule holds, else 0.0; None when it takes a reader. Raises TrainingDataError for an unknown rule."""
    unknown = sorted(set(check) - set(_RULES) - {"read"})
    if unknown or not check:
        raise TrainingDataError(f"a check has the rules {sorted(check)!r}; known are {sorted([*_RULES, 'read'])!r}")
    if "read" in check:
        return None
    plain = answer.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("\N{MINUS SIGN}", "-")
    return float(all(_RULES[rule](wanted, plain) for rule, wanted in check.items()))


def stated_yes_or_no(answer: str) -> str | None:
    """The last `[yes]` or `[no]` in brackets, or else the last such word; in lower case."""
    stated = re.findall(r"\[(yes|no)\]", answer, re.IGNORECASE) or re.findall(r"\b(yes|no)\b", answer, re.IGNORECASE)
    return str(stated[-1]).lower() if stated else None


def _occurs(words: Words, answer: str) -> bool:
    """Whether the words, or one of several alternatives, stand in the answer: whole, in any case, with or without markup.

    A unit may follow a number at once, further digits may not.
    """
    if not isinstance(words, str):
        return any(_occurs(each, answer) for each in words)
    before = r"(?<![\d.])" if words[0].isdigit() else r"(?<!\w)"
    after = r"(?!\d|[.,]\d)" if words[-1].isdigit() else r"(?!\w)"
    pattern = re.compile(before + re.escape(words) + after, re.IGNORECASE)
    bare = _MARKUP.sub("", answer)
    return any(pattern.search(text) for text in (answer, bare, _THOUSANDS.sub("", bare)))


def _comes_to(number: float, answer: str) -> bool:
    found = _last(_NUMBERS, answer)
    return found is not None and abs(float(found.replace(",", "")) - number) <= NEARLY * max(abs(number), 1.0)


def _last(ways: Sequence[re.Pattern[str]], answer: str) -> str | None:
    """What the first way that finds anything finds last."""
    return next((found[-1] for way in ways if (found := way.findall(answer))), None)


_RULES: dict[str, Callable[[Any, str], bool]] = {
    "any": _occurs,
    "all": lambda every, answer: all(_occurs(words, answer) for words in every),
    "none": lambda words, answer: not _occurs(words, answer),
    "number": _comes_to,
    "letter": lambda letter, answer: _last(_LETTERS, answer) == letter,
    "yes_or_no": lambda word, answer: stated_yes_or_no(answer) == word,
    "most_words": lambda most, answer: len(answer.split()) <= most,
}
