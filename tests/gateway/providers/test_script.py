"""Scripts: what may be written, what is refused with the nearest right word, and plans that keep their own count."""

from __future__ import annotations

import re
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.providers.script import Behaviour, Script, read_script
from gateway.providers.script_plan import Begin, Break, Send, Wait, pieces, plan

BODY = {
    "model": "m",
    "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "how are you?"}],
}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def sent(script: Script, body: dict[str, Any], number: int = 1) -> bytes:
    return b"".join(
        action.data * action.repeat for action in plan(script, number, body).actions if isinstance(action, Send)
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"behavior": "good"}, "unknown key 'script.behavior'; did you mean 'behaviour'?"),
        ({"zzz": 1}, "unknown key 'script.zzz'; known keys: behaviour, reply"),
        ({"behaviour": "floky"}, "script.behaviour is 'floky'; did you mean 'flaky'?"),
        ({"behaviour": 7}, "script.behaviour is 7; give one of good, slow"),
        ({"usage": "yes"}, "script.usage is 'yes'; give one of report, omit"),
        ({"tokens": {"inputs": 5}}, "unknown key 'script.tokens.inputs'; did you mean 'input'?"),
        ({"tokens": {"input": -5}}, "script.tokens.input is -5: give a whole number, 0 or more."),
        ({"tokens": {"input": 5, "cached": 6}}, "script.tokens.cached is 6: it is a part of `input`"),
        ({"tokens": {"output": 5, "reasoning": 6}}, "script.tokens.reasoning is 6: it is a part of `output`"),
        ({"tokens": 5}, "script.tokens is 5: give a mapping"),
        ({"retry_after": "soon"}, "script.retry_after is 'soon': give a number"),
        ({"fail_every": 1.5}, "script.fail_every is 1.5: give a whole number"),
        ({"fail_first": True}, "script.fail_first is True: give a whole number"),
        ({"reply": 5}, "script.reply is 5: give a text."),
        ({"tool_call": {"name": "f"}}, "script.tool_call is {'name': 'f'}: give `name` and `arguments`"),
        ({"status": 42}, "script.status is 42"),
        ([], "script is []: give a mapping"),
    ],
    ids=str,
)
def test_a_wrong_script_is_refused_with_the_value_and_what_would_be_right(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_script(document, "script")


def test_an_empty_script_echoes_the_last_user_message() -> None:
    payload = orjson.loads(sent(read_script({}, "script"), BODY))
    assert payload["choices"][0]["message"] == {"role": "assistant", "content": "how are you?"}
    assert payload["usage"]["prompt_tokens"] == 5
    assert payload["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("behaviour", get_args(Behaviour))
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["plain", "stream"])
def test_the_same_call_has_the_same_plan(behaviour: Behaviour, body: dict[str, Any]) -> None:
    script = Script(behaviour=behaviour, reply="one two three")
    assert plan(script, 2, body) == plan(script, 2, body)


def test_a_flaky_upstream_fails_its_first_calls_and_then_every_so_many_th() -> None:
    script = read_script({"behaviour": "flaky", "fail_first": 2, "fail_every": 5}, "script")
    failing = [number for number in range(1, 16) if plan(script, number, BODY).delivered is None]
    assert failing == [1, 2, 5, 10, 15]
    assert [number for number in range(1, 7) if Script(behaviour="flaky").fails(number)] == [2, 4, 6]
    assert not any(Script(behaviour="flaky", fail_first=1).fails(number) for number in range(2, 9))


def test_a_slow_upstream_waits_before_the_first_and_between_further_tokens() -> None:
    waits = [
        action.seconds
        for action in plan(Script(behaviour="slow", reply="a b"), 1, STREAM).actions
        if isinstance(action, Wait)
    ]
    assert waits == [1.0, 0.05, 0.05, 0.05]
    assert plan(Script(behaviour="slow", reply="a b c"), 1, BODY).actions[0] == Wait(1.0 + 2 * 0.05)


def test_a_cut_plain_reply_promises_more_than_it_sends() -> None:
    begin, part, broken = plan(Script(behaviour="cut", reply="one two"), 1, BODY).actions
    assert isinstance(begin, Begin)
    assert isinstance(part, Send)
    assert begin.length is not None
    assert begin.length > len(part.data)
    assert broken == Break()


@given(
    reply=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    reasoning=st.text("ab \n", max_size=20),
    hidden=st.none() | st.integers(0, 50),
    choices=st.integers(1, 3),
    limit=st.none() | st.integers(1, 5),
)
def test_a_plan_reports_exactly_the_tokens_that_it_delivers(
    reply: str, reasoning: str, hidden: int | None, choices: int, limit: int | None
) -> None:
    script = read_script(
        {"reply": reply, "reasoning": reasoning, "tokens": {"reasoning": hidden} if hidden is not None else {}}, "s"
    )
    changes = {"n": choices} | ({"max_tokens": limit} if limit else {})
    made = plan(script, 1, {**STREAM, **changes})
    data = b"".join(action.data for action in made.actions if isinstance(action, Send))
    events = [orjson.loads(block[6:]) for block in data.split(b"\n\n") if block and block != b"data: [DONE]"]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    texts = sum(1 for delta in deltas if delta.get("content"))
    thoughts = sum(1 for delta in deltas if delta.get("reasoning_content")) if hidden is None else hidden * choices
    assert made.delivered is not None
    assert (made.delivered.output, made.delivered.reasoning) == (texts + thoughts, thoughts)
    assert events[-1]["usage"] == made.delivered.usage()
    plain = plan(script, 1, {**BODY, **changes})
    assert plain.delivered == made.delivered
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == "".join(pieces(reply or "")[:limit]) * choices or choices > 1


def test_pieces_put_together_are_the_text() -> None:
    for text in ("", " ", "a", " a b\n\nc ", "ü 😀\tx"):
        assert "".join(pieces(text)) == text
