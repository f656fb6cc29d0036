"""What a model's recent replies stayed within: nothing while few are known, then the share that was asked for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.outputs import ENOUGH, REMEMBERED, Outputs


def test_nothing_is_said_before_enough_replies_are_known() -> None:
    outputs = Outputs()
    for _ in range(ENOUGH - 1):
        outputs.note("m", 10, 1)
    assert outputs.within("m", 0.9) is None
    outputs.note("m", 10, 1)
    assert outputs.within("m", 0.9) == 10
    assert outputs.within("other", 0.9) is None


def test_several_choices_share_the_tokens_of_a_reply() -> None:
    outputs = Outputs()
    for _ in range(ENOUGH):
        outputs.note("m", 10, 3)
    assert outputs.within("m", 0.5) == 4


def test_old_replies_are_forgotten_and_new_ones_are_noticed() -> None:
    outputs = Outputs()
    for _ in range(ENOUGH):
        outputs.note("m", 10, 1)
    assert outputs.within("m", 0.99) == 10
    for _ in range(REMEMBERED):
        outputs.note("m", 500, 1)
    assert outputs.within("m", 0.01) == 500


@given(st.lists(st.integers(0, 100_000), min_size=ENOUGH, max_size=300), st.floats(0.01, 0.99))
def test_at_least_the_share_stayed_within(lengths: list[int], share: float) -> None:
    outputs = Outputs()
    for length in lengths:
        outputs.note("m", length, 1)
    found = outputs.within("m", share)
    assert found in lengths
    assert sum(length <= found for length in lengths) >= math.floor(share * len(lengths))
