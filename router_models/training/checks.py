"""Grades a model's answer by the rule that came with the prompt, so that outcomes can be recorded without a judge.

A check is a mapping of rules, which must all hold: `any` or `all` (words that occur; an entry of `all` may be a list of
alternatives), `none` (words that do not), `number` (the last one in the answer), `letter` (the option that is named),
`first` (which of `yes` and `no` comes first), `most_words`. `read` says what a reader has to look for: no rule can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router_models.errors import TrainingDataError

NEARLY = 1e-6
"""Relative difference that two numbers may have and still be equal."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_SAID = re.compile(r"answer(?: is|:)?\W*(?:option )?\(?([A-J])\b(?!')")
_LED_BY = re.compile(r"\W*(?:option )?\(?([A-J])(?:[).:,\s]|$)")
_YES_OR_NO = re.compile(r"\b(yes|no)\b")

Words = str | Sequence[str]


def grade(check: Mapping[str, Any], answer: str) -> float | None:
    """1.0 where every rule holds, else 0.0; None when it takes a reader. Raises TrainingDataError for an unknown rule."""
    unknown = sorted(set(check) - set(_RULES) - {"read"})
    if unknown or not check:
        raise TrainingDataError(f"a check has the rules {sorted(check)!r}; known are {sorted([*_RULES, 'read'])!r}")
    if "read" in check:
        return None
    return float(all(_RULES[rule](wanted, answer) for rule, wanted in check.items()))


def _occurs(words: Words, answer: str) -> bool:
    """Whether the words, or one of several alternatives, stand in the answer, as whole words and in any case."""
    if not isinstance(words, str):
        return any(_occurs(each, answer) for each in words)
    plain = answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.search(rf"(?<!\w){re.escape(words.lower())}(?!\w)", plain) is not None


def _ends_in(number: float, answer: str) -> bool:
    found = _NUMBER.findall(answer)
    return bool(found) and abs(float(found[-1].replace(",", "")) - number) <= NEARLY * max(abs(number), 1.0)


def _names(letter: str, answer: str) -> bool:
    """The last option that is called the answer, or else the one that the answer begins with."""
    said = _SAID.findall(answer)
    led = _LED_BY.match(answer)
    return (said[-1] if said else led[1] if led else None) == letter


def _begins(word: str, answer: str) -> bool:
    found = _YES_OR_NO.search(answer.lower())
    return found is not None and found[1] == word


_RULES: dict[str, Callable[[Any, str], bool]] = {
    "any": _occurs,
    "all": lambda every, answer: all(_occurs(words, answer) for words in every),
    "none": lambda words, answer: not _occurs(words, answer),
    "number": _ends_in,
    "letter": _names,
    "first": _begins,
    "most_words": lambda most, answer: len(answer.split()) <= most,
}
