"""Prompt lookup finds what a search through the whole text would find, and what it proposes continues that place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from local_engine.request import Request, SamplingParams
from local_engine.speculative.drafter import Draft
from local_engine.speculative.ngram import NgramDrafter, SuffixIndex


def searched(tokens: list[int]) -> int:
    """Length of the longest suffix that ends earlier as well, by looking everywhere; 16 counts as endless."""
    last = len(tokens) - 1

    def same(at: int) -> int:
        length = 0
        while length <= at and length < 16 and tokens[at - length] == tokens[last - length]:
            length += 1
        return length

    return max((same(at) for at in range(last)), default=0)


def propose(tokens: list[int], wanted: int = 5) -> Draft:
    return NgramDrafter().propose([Request(1, tokens, SamplingParams(max_tokens=99))], [wanted])[0]


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 40), min_size=1, max_size=60), cut=st.integers(0, 60))
def test_the_longest_match_is_found_however_the_text_arrived(tokens: list[int], cut: int) -> None:
    index = SuffixIndex()
    index.extend(tokens[:cut])
    index.extend(tokens)
    end, length = index.longest_match(tokens)
    assert length == searched(tokens)
    assert end < len(tokens) - 1
    if length:
        assert tokens[end - length + 1 : end + 1] == tokens[len(tokens) - length :]


def test_what_followed_the_last_time_is_proposed() -> None:
    assert propose([1, 2, 3, 4, 5, 6, 7, 9, 2, 3]).tokens == (4, 5, 6, 7, 9)
    assert propose([1, 2, 3, 4, 8, 2, 3, 5, 8, 2, 3], wanted=2).tokens == (5, 8), (
        "the longest match, though it is older"
    )
    assert propose([2, 3, 4, 7, 2, 3, 5, 9, 2, 3], wanted=1).tokens == (5,), "the newest of equally long ones"
    assert propose([4, 5, 6, 7]).tokens == ()


def test_a_repetition_goes_on_behind_the_end_of_the_text() -> None:
    assert propose([9, 1, 2, 3, 1, 2, 3], wanted=7).tokens == (1, 2, 3, 1, 2, 3, 1)
    assert propose([5, 5, 5], wanted=4).tokens == (5, 5, 5, 5)


def test_longer_matches_are_told_apart_and_an_ended_request_leaves_nothing() -> None:
    text = list(range(20))
    kinds = [propose([*text, 30, *text[10 - length : 10]]).kind for length in (1, 2, 3, 4, 6, 9)]
    assert kinds == ["ngram-1", "ngram-2", "ngram-3", "ngram-4", "ngram-5", "ngram-8"]
    drafter = NgramDrafter()
    request = Request(1, [1, 2, 1, 2], SamplingParams(max_tokens=9))
    drafter.propose([request], [3])
    drafter.forget(request)
    drafter.forget(request)
    request.tokens[:] = [7, 8, 9]
    assert drafter.propose([request], [3])[0].tokens == ()
