"""Answers are graded by the rule that came with their prompt; what no rule can grade waits for a reader."""

from __future__ import annotations

from typing import Any

import pytest

from router_models.errors import TrainingDataError
from router_models.training.checks import grade

RIGHT: list[tuple[dict[str, Any], str]] = [
    ({"any": ["paris", "lutetia"]}, "It is Paris."),
    ({"any": ["22.5", "22.50"]}, "Each pays $22.50"),
    ({"any": ["it's"]}, "It\N{RIGHT SINGLE QUOTATION MARK}s a dog"),
    ({"any": ["doesn't like"]}, "She **doesn't** like coffee"),
    ({"any": ["450"]}, "450g of flour"),
    ({"any": ["3:45"]}, "at 3:45pm"),
    ({"any": ["2500"]}, "That is 2,500 g."),
    ({"any": ["8,21"]}, "[8,21]"),
    ({"all": ["red", ["blue", "azure"]]}, "Red and azure"),
    ({"number": 1200}, "12 x 100 = 1,200."),
    ({"number": 0.5}, "that is .5"),
    ({"number": -3}, "x = \N{MINUS SIGN}3"),
    ({"number": 3}, "The pages 1-3"),
    ({"number": 56.64}, "The answer is $56.64 (48.00 + 8.64)"),
    ({"number": 7}, r"So \boxed{7} in 2 steps"),
    ({"letter": "C"}, "C"),
    ({"letter": "C"}, "(C) Nitrogen"),
    ({"letter": "C"}, "C. Nitrogen, since A and B are wrong"),
    ({"letter": "C"}, "A good question. The answer is (C)."),
    ({"letter": "C"}, "The answer is B. No, the answer is C."),
    ({"letter": "C"}, "Answer: C"),
    ({"letter": "C"}, "**Answer: C**"),
    ({"letter": "C"}, "**C**"),
    ({"letter": "C"}, '"C"'),
    ({"letter": "C"}, "Option C"),
    ({"letter": "C"}, "The Answer is Option C. Option D is not."),
    ({"letter": "C"}, "The correct option is C."),
    ({"letter": "C"}, r"Hence \boxed{C}"),
    ({"letter": "C"}, "The answer I believe is C."),
    ({"yes_or_no": "yes"}, "No divisors below its root, so it is prime. [Yes]"),
    ({"yes_or_no": "no"}, "Is it? No"),
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"any": ["paris"]}, "Comparison shopping"),
    ({"any": ["16"]}, "16.9 km"),
    ({"any": ["20"]}, "0.20 %"),
    ({"any": ["450"]}, "1450 g"),
    ({"all": ["red", ["blue", "azure"]]}, "Red only"),
    ({"any": ["cat"], "none": ["dog"]}, "a cat and a dog"),
    ({"any": ["yes"], "most_words": 3}, "Yes, it certainly is so"),
    ({"number": 4}, "2+2 = 4, not 5"),
    ({"number": 4}, "four"),
    ({"letter": "A"}, "All of them"),
    ({"letter": "A"}, "A good question"),
    ({"letter": "I"}, "I think it is nitrogen"),
    ({"letter": "C"}, "Nitrogen"),
    ({"letter": "C"}, "The answer is D"),
    ({"yes_or_no": "no"}, "No factor was found: [Yes]"),
    ({"yes_or_no": "no"}, "Nobody knows"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_a_right_answer_counts(check: dict[str, Any], answer: str) -> None:
    assert grade(check, answer) == 1.0


@pytest.mark.parametrize(("check", "answer"), WRONG)
def test_a_wrong_answer_does_not(check: dict[str, Any], answer: str) -> None:
    assert grade(check, answer) == 0.0


def test_what_takes_a_reader_has_no_score() -> None:
    assert grade({"read": "a greeting", "most_words": 5}, "hello") is None


@pytest.mark.parametrize("check", [{}, {"contains": ["x"]}])
def test_an_unknown_rule_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(TrainingDataError, match="known are"):
        grade(check, "hello")
