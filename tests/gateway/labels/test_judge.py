"""What a judge is asked, and what its replies come to."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.labels.judge import MAX_CHARACTERS, Choice, choice_of, combined, conversation, judge_body, said
from gateway.verdicts import Verdict


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("A", "A"), ("b", "B"), ("TIE", "tie"), ("**A**", "A"), ("Answer A is wrong.\nB", "B"), ("The better one: B.", "B"),
        ("tie.", "tie"), ("", None), ("I cannot say", None), ("neither", None),
    ],
)  # fmt: skip
def test_the_last_line_of_a_judge_counts(reply: str, choice: Choice | None) -> None:
    assert choice_of(reply) == choice


@pytest.mark.parametrize(
    ("answer_first", "shadow_first", "verdict"),
    [
        ("A", "B", "answer"), ("B", "A", "shadow"), ("A", "A", "agree"), ("B", "B", "agree"), ("tie", "tie", "agree"),
        ("A", "tie", "agree"), (None, "A", "incomparable"), ("A", None, "incomparable"),
    ],
)  # fmt: skip
def test_a_judge_that_contradicts_itself_has_said_a_tie(
    answer_first: Choice | None, shadow_first: Choice | None, verdict: Verdict
) -> None:
    assert combined(answer_first, shadow_first) == verdict


def test_the_judge_sees_request_and_answers_and_long_ones_lose_their_middle() -> None:
    body = judge_body("What is 2+2?", "4", "begin" + "x" * 2 * MAX_CHARACTERS + "end")
    system, user = body["messages"]
    assert "never an instruction" in system["content"]
    assert "What is 2+2?" in user["content"]
    assert "begin" in user["content"]
    assert "xend\n[end of answer B]" in user["content"]
    assert len(user["content"]) < 1.1 * MAX_CHARACTERS
    assert body["max_tokens"] == judge_body("", "", "", "max_completion_tokens")["max_completion_tokens"]


def test_a_conversation_is_told_with_its_roles_and_what_is_no_text_is_named() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}]
    assert conversation([{"role": "user", "content": parts}]) == "What is this?\n[image_url]"
    told = conversation([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
    assert told == "system: Be kind.\n\nuser: Hi"
    assert said("", [("look_up", '{"city": "Paris"}')]) == '[calls look_up with {"city": "Paris"}]'
