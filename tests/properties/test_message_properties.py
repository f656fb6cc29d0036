"""Reading thoughts and tool calls from text gives the same for any cut of it into pieces, and never shows markup."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from local_engine.structured.message import MessageReader, ThoughtReader, ToolReader

TAGS = ("<think>", "</think>")
CALL = '{"name": "look_up", "arguments": {"city": "Paris \\"}{", "n": [1, {"a": null}]}}'
PARTS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", CALL, f"[{CALL}, {CALL}]",
     '{"name": "other", "parameters": {}}', '{"arguments": "{\\"a\\": 1}", "name": "look_up"}', '{"a": 1}', '{"name": 1}',
     " ", "\n", "<", "<th", "tool", "ü日", "text", "{", "}", '"', "]", "[", ","]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=8).map("".join)


def read(pieces: list[str], *, opened: bool, forced: bool) -> dict[str, Any]:
    reader = MessageReader(ThoughtReader(TAGS, opened=opened), ToolReader({"look_up"}, forced=forced))
    whole: dict[str, Any] = {"reasoning": "", "content": "", "calls": []}
    for place, piece in enumerate(pieces):
        delta = reader.push(piece, last=place == len(pieces) - 1)
        whole["reasoning"] += delta.reasoning
        whole["content"] += delta.content
        for call in delta.calls:
            if call.name is not None:
                assert call.index == len(whole["calls"])
                assert call.id
                whole["calls"].append([call.name, ""])
            whole["calls"][call.index][1] += call.arguments
    return whole


@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=12), opened=st.booleans(), forced=st.booleans())
@example(text="[TOOL_CALLS]", cuts=[1], opened=False, forced=True)
@example(text="  <think> a </think>\n\nb", cuts=[1, 5, 9], opened=False, forced=False)
def test_any_cut_of_the_text_reads_the_same(text: str, cuts: list[int], opened: bool, forced: bool) -> None:
    whole = read([text], opened=opened, forced=forced)
    places = sorted({cut for cut in cuts if 0 < cut < len(text)})
    pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    assert read(pieces, opened=opened, forced=forced) == whole
    assert read(list(text) or [""], opened=opened, forced=forced) == whole


@given(before=st.sampled_from(["", "Let me look.\n", "\n"]), count=st.integers(1, 3), form=st.integers(0, 4))
def test_calls_of_every_native_form_are_read_without_their_markup(before: str, count: int, form: int) -> None:
    calls = [CALL] * count
    texts = [
        before + "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls),
        before + "[TOOL_CALLS][" + ", ".join(calls) + "]",
        before + "<|python_tag|>" + "; ".join(calls),
        "; ".join(calls),  # bare
        "[" + ", ".join(calls) + "]",  # forced
    ]
    found = read([texts[form]], opened=False, forced=form == 4)
    assert [name for name, _ in found["calls"]] == ["look_up"] * count
    assert all(json.loads(arguments) == json.loads(CALL)["arguments"] for _, arguments in found["calls"])
    assert found["content"] == (before.rstrip() if form < 3 else "")


@given(text=st.text(alphabet="ab <{\n", max_size=30), thought=st.text(alphabet="cd </\n", max_size=30))
def test_a_thought_is_taken_out_whole(text: str, thought: str) -> None:
    found = read([f"<think>{thought}</think>{text}x"], opened=False, forced=False)
    assert found["reasoning"] == thought.strip()
    assert found["content"] == f"{text}x".lstrip()
    opened = read([f"{thought}</think>{text}x"], opened=True, forced=False)
    assert opened == found


def test_what_is_no_call_is_shown_as_it_is() -> None:
    for text in ('{"city": "Paris"}', '{"name": "unknown", "arguments": {}}', '{"name": "look', "{", "a <tool b"):
        assert read([text], opened=False, forced=False) == {"reasoning": "", "content": text, "calls": []}


def test_a_call_that_is_cut_keeps_what_was_said() -> None:
    found = read(['<tool_call>{"name": "look_up", "arguments": {"city": "Pa'], opened=False, forced=False)
    assert found == {"reasoning": "", "content": "", "calls": [["look_up", '{"city": "Pa']]}


def test_arguments_written_as_a_string_are_unwrapped() -> None:
    found = read(['{"name": "look_up", "arguments": "{\\"city\\": \\"Paris\\"}"}'], opened=False, forced=True)
    assert found["calls"] == [["look_up", '{"city": "Paris"}']]
