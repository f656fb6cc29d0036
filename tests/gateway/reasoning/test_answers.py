"""The final answer of a reply: what counts as one, and when two come to the same."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from gateway.reasoning.answers import (
    Answer,
    answer_of,
    answer_of_stream,
    fenced_in,
    final_answer,
    normal_form,
    same_answer,
)

SAME = [
    ("42", "The answer is 42."),
    ("#### 1,234", "So the total is **1234.00**."),
    (r"Thus \boxed{3.50}", "Answer: $3.5"),
    ("B", "The correct answer is (B) Paris."),
    ("b)", "**Answer:** B"),
    ("B. Paris", "[B]"),
    ("Paris.", "paris"),
    ('{"a": 1, "b": [2]}', '```json\n{"b": [2], "a": 1}\n```'),
    ("Let me think about it for a while.\nThat makes 12 eggs, of which 9 remain.", "9"),
    ("−5", "-5"),
    ("1e3", "1000"),
    ("Final answer: Ada Lovelace", "ada lovelace!"),
]
DIFFERENT = [
    ("42", "The answer is 43."),
    ("A", "B"),
    ("Paris", "London"),
    ('{"a": 1}', '{"a": 2}'),
    ("0.1", "0.10001"),
    ("yes", "no"),
]
PROSE = "Rome was not built in a day, and neither was anything else that is worth looking at for longer than that."
UNCLEAR = [
    ("42", PROSE),
    (PROSE, PROSE),
    ("", ""),
    ("A", "17"),
    ("Paris", "The capital is Paris"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_answers_that_come_to_the_same_are_the_same(one: str, other: str) -> None:
    assert final_answer(Answer(one)) == final_answer(Answer(other))
    assert same_answer(Answer(one), Answer(other)) is True


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_final_answers_differ(one: str, other: str) -> None:
    assert same_answer(Answer(one), Answer(other)) is False
    assert same_answer(Answer(other), Answer(one)) is False


@pytest.mark.parametrize(("one", "other"), UNCLEAR)
def test_what_has_no_final_answer_is_not_compared(one: str, other: str) -> None:
    assert same_answer(Answer(one), Answer(other)) is None


def test_an_answer_that_was_cut_is_not_compared() -> None:
    assert same_answer(Answer("42", whole=False), Answer("42")) is None


def test_tool_calls_are_compared_by_name_and_arguments_whatever_their_order() -> None:
    one = Answer("", (("look_up", '{"city": "Paris", "day": 1}'), ("add", "{}")))
    other = Answer("I will look.", (("add", "{ }"), ("look_up", '{"day":1,"city":"Paris"}')))
    assert same_answer(one, other) is True
    assert same_answer(one, Answer("", (("look_up", '{"city": "Rome", "day": 1}'), ("add", "{}")))) is False
    assert same_answer(one, Answer("42")) is None


def test_a_stream_says_what_the_whole_reply_says() -> None:
    call = {"name": "look_up", "arguments": '{"city": "Paris"}'}
    whole = {
        "choices": [{"message": {"content": "The answer", "tool_calls": [{"function": call}]}, "finish_reason": "stop"}]
    }
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": "The "},
        {"content": "answer"},
        {"tool_calls": [{"index": 0, "function": {"name": "look_up", "arguments": '{"city"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "Paris"}'}}]},
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.insert(1, {"choices": [{"index": 1, "delta": {"content": "another choice"}}]})
    events = b": ping\n\n" + b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    assert answer_of_stream(events) == answer_of(whole) == Answer("The answer", (("look_up", '{"city": "Paris"}'),))
    cut = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n'
    assert not answer_of_stream(events + cut).whole


@pytest.mark.parametrize(
    "payload", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": None}}]}]
)
def test_a_reply_without_text_is_an_empty_answer(payload: dict[str, Any]) -> None:
    assert answer_of(payload) == Answer("")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', ['{"a": 1}']),
        ("So:\n  ```\n\n[1,\n2]\n\n  ```\nand\n``` JSON\n3\n```", ["[1,\n2]", "3"]),
        ("```python\n{}\n```\n```json\n[]\n```", ["[]"]),
        ("```json\n{}", []),
        ("```x```\n```\n4\n```", ["4"]),
        ("", []),
    ],
)
def test_what_a_fence_holds_is_found_line_by_line(text: str, inside: list[str]) -> None:
    assert fenced_in(text) == inside


LINE = "x y z a b c d e f g"
"""Words enough not to be a short text."""


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        r"\boxed{" * 20_000,
        r"\boxed{" + r"{a}" * 50_000,
        "1," * 100_000,
        "1" * 200_000,
        "answer " * 50_000,
        "answer" + "\n" * 200_000 + LINE,
        "answer is" + " \n:" * 50_000 + LINE,
        "####" + " " * 200_000 + LINE,
        "```json\n" * 30_000,
        "```\n" * 30_000,
        "```\n" + "\n" * 200_000 + LINE,
        "```python\n" + "    \n" * 50_000 + LINE,
        "```json\n" + "  " * 100_000 + "\n" + LINE,
        ("```\n" + "\n" * 100) * 2_000 + LINE,
        "(" * 100_000,
        "*" * 200_000,
        "a" + "\u0301\u0323" * 100_000,
        ("a" + "\u0301\u0323" * 20 + " ") * 5_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_long_and_hostile_texts_end_soon(text: str) -> None:
    """Milliseconds; what is quadratic or worse in such a text takes minutes, and stops everything else meanwhile."""
    assert same_answer(Answer(text), Answer("42")) in (None, False)


@pytest.mark.parametrize(
    "text", ["\ufb01ne", "e\u0301t\u00e9 \uff21", "\u00a042\u2003", "\u1100\u1161\u11a8", "9\u00b2"]
)
def test_texts_are_brought_into_normal_form_as_a_whole_would_be(text: str) -> None:
    assert normal_form(text) == unicodedata.normalize("NFKC", text)
