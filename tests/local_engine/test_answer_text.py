"""Streamed text is whole characters, never a part of a stop string, and joins up to the whole answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models

from local_engine.answer_text import AnswerText, StopMatcher
from local_engine.stream_decoder import ByteDecoder, StreamDecoder, TextDecoder, stream_decoder
from local_engine.tokenizer import Tokenizer, tokenizer_from_directory


@pytest.fixture(scope="session")
def tokenizer(tiny_directory: Path) -> Tokenizer:
    return tokenizer_from_directory(tiny_directory)


Make = Callable[[Tokenizer], StreamDecoder]
each_decoder = pytest.mark.parametrize("make", [ByteDecoder, TextDecoder])


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


def streamed(decoder: StreamDecoder, ids: list[int]) -> str:
    return "".join([decoder.push(token) for token in ids]) + decoder.flush()


@each_decoder
@given(text=st.text(max_size=40))
def test_streamed_pieces_join_up_to_the_text(tokenizer: Tokenizer, make: Make, text: str) -> None:
    ids = tokenizer.encode(text)
    assert streamed(make(tokenizer), ids) == tokenizer.decode(ids) == text


@each_decoder
@given(ids=st.lists(st.integers(0, 399), max_size=40))
def test_any_tokens_give_the_text_of_all_together(tokenizer: Tokenizer, make: Make, ids: list[int]) -> None:
    assert streamed(make(tokenizer), ids) == tokenizer.decode(ids)


def test_the_bytes_of_tokens_are_read_where_they_make_the_text(tokenizer: Tokenizer) -> None:
    assert isinstance(stream_decoder(tokenizer), ByteDecoder)


def test_what_is_kept_of_each_token_is_its_bytes_or_the_text_they_make(tokenizer: Tokenizer) -> None:
    kept = tokenizer.shown(markup=False)
    assert len(kept) == tokenizer.vocab_size
    hidden = [index for index, each in enumerate(kept) if not each and tokenizer.token_bytes(index)]
    assert hidden == [index for index in range(len(kept)) if not tokenizer.decode([index])]
    for index in set(range(len(kept))) - set(hidden):
        each, spelled = kept[index], tokenizer.token_bytes(index)
        assert each == spelled if isinstance(each, bytes) else each.encode() == spelled
        assert isinstance(each, bytes) == ("\ufffd" in tokenizer.decode([index]))


@each_decoder
def test_an_id_behind_the_vocabulary_has_no_text(tokenizer: Tokenizer, make: Make) -> None:
    half = tokenizer.encode("🎉")
    ids = [*tokenizer.encode("a"), 10**6, *half[:2], 10**6, *half[2:]]
    assert streamed(make(tokenizer), ids) == "a🎉"


def test_a_tokenizer_that_changes_spaces_is_asked_for_the_text() -> None:
    fast = FastTokenizer(models.BPE({"\u2581a": 0, "b": 1}, []))
    fast.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(fast, template=None, end_ids=frozenset())
    decoder = stream_decoder(tokenizer)
    assert isinstance(decoder, TextDecoder)
    assert streamed(decoder, [0, 1, 0]) == "ab a"


@each_decoder
def test_a_character_of_several_tokens_comes_in_one_piece(tokenizer: Tokenizer, make: Make) -> None:
    ids = tokenizer.encode("🎉")
    assert len(ids) == 4
    decoder = make(tokenizer)
    assert [decoder.push(token) for token in ids] == ["", "", "", "🎉"]


def test_bytes_that_never_become_a_character_are_not_shown(tokenizer: Tokenizer) -> None:
    answer = AnswerText(tokenizer, ())
    assert answer.push(tokenizer.encode("🎉")[0]) == ""
    assert answer.finish() == ""
