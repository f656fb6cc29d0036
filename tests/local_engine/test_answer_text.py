"""Streamed text is whole characters, never a part of a stop string, and joins up to the whole answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_engine.answer_text import AnswerText, StopMatcher
from local_engine.tokenizer import StreamDecoder, Tokenizer, tokenizer_from_directory


@pytest.fixture(scope="session")
def tokenizer(tiny_directory: Path) -> Tokenizer:
    return tokenizer_from_directory(tiny_directory)


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """What a matcher must show of the whole text: everything before the stop string that is complete first."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        return text, False
    first_end = min(ends)[0]
    return text[: min(start for end, start in ends if end == first_end)], True


@given(
    pieces=st.lists(st.text(alphabet="abc", max_size=3), max_size=12),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_string_cuts_the_text_wherever_the_pieces_break(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for index, piece in enumerate(pieces):
        shown += matcher.push(piece)
        so_far, stopped = cut("".join(pieces[: index + 1]), stops)
        assert so_far.startswith(shown) or stopped
        if matcher.stopped:
            break
    whole = "".join(pieces)
    if matcher.stopped:
        assert any(whole.startswith(shown + stop) for stop in stops)
        assert not any(stop in shown for stop in stops)
    else:
        assert shown + matcher.flush() == whole
        assert not any(stop in whole for stop in stops)


def test_no_part_of_a_stop_string_is_shown_before_it_is_ruled_out() -> None:
    matcher = StopMatcher(["END.", "###"])
    assert [matcher.push(piece) for piece in ("one E", "N", "D of #", "#", " two EN")] == [
        "one ", "", "END of ", "", "## two ",
    ]  # fmt: skip
    assert matcher.push("D. three") == ""
    assert matcher.stopped
    assert matcher.push("more") + matcher.flush() == ""


@given(text=st.text(max_size=40))
def test_streamed_pieces_join_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    assert "".join(pieces) + decoder.flush() == tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_in_one_piece(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🎉")
    assert len(ids) == 4
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(token) for token in ids] == ["", "", "", "🎉"]


def test_bytes_that_never_become_a_character_are_not_shown(tokenizer: Tokenizer) -> None:
    answer = AnswerText(tokenizer, ())
    assert answer.push(tokenizer.encode("🎉")[0]) == ""
    assert answer.finish() == ""
