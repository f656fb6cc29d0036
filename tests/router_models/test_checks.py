"""Answers are graded by the rule that came with their prompt; what no rule can grade waits for a reader."""

from __future__ import annotations

from typing import Any

import pytest

from router_models.errors import TrainingDataError
from router_models.training.checks import grade


@pytest.mark.parametrize(
    ("check", "answer", "score"),
    [
        ({"any": ["paris", "lutetia"]}, "It is Paris.", 1.0),
        ({"any": ["paris"]}, "Comparison shopping", 0.0),
        ({"any": ["22.5", "22.50"]}, "Each pays $22.50", 1.0),
        ({"any": ["it's"]}, "It\N{RIGHT SINGLE QUOTATION MARK}s a dog", 1.0),
        ({"all": ["red", ["blue", "azure"]]}, "Red and azure", 1.0),
        ({"all": ["red", ["blue", "azure"]]}, "Red only", 0.0),
        ({"any": ["cat"], "none": ["dog"]}, "a cat and a dog", 0.0),
        ({"any": ["yes"], "most_words": 3}, "Yes, it certainly is so", 0.0),
        ({"number": 1200}, "12 x 100 = 1,200.", 1.0),
        ({"number": 0.5}, "that is .5", 1.0),
        ({"number": -3}, "x = -3", 1.0),
        ({"number": 4}, "2+2 = 4, not 5", 0.0),
        ({"number": 4}, "four", 0.0),
        ({"letter": "C"}, "C", 1.0),
        ({"letter": "C"}, "(C) Nitrogen", 1.0),
        ({"letter": "C"}, "C. Nitrogen, since A and B are wrong", 1.0),
        ({"letter": "C"}, "A good question. The answer is (C).", 1.0),
        ({"letter": "C"}, "The answer is B. No, the answer is C.", 1.0),
        ({"letter": "A"}, "All of them", 0.0),
        ({"letter": "C"}, "Nitrogen", 0.0),
        ({"first": "yes"}, "Yes, 7 is prime; no doubt", 1.0),
        ({"first": "no"}, "7 is a prime, yes", 0.0),
        ({"first": "no"}, "Not known", 0.0),
    ],
)
def test_a_rule_grades_an_answer(check: dict[str, Any], answer: str, score: float) -> None:
    assert grade(check, answer) == score


def test_what_takes_a_reader_has_no_score() -> None:
    assert grade({"read": "a greeting", "most_words": 5}, "hello") is None


@pytest.mark.parametrize("check", [{}, {"contains": ["x"]}])
def test_an_unknown_rule_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(TrainingDataError, match="known are"):
        grade(check, "hello")
