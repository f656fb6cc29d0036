"""Scoring many kept prompts gives what the router gives one by one, and nearly what it gave the text itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_models.batch import LASTING, score_kept
from router_models.kept import Kept, fingerprint, pack, unpack_many
from router_models.request import RequestText
from router_models.router import Router, Score
from router_models.tiers import TIERS

ROUTER = Router.load()
REQUESTS = [
    RequestText.from_prompt("What is 2+2?"),
    RequestText.from_prompt(""),
    RequestText.from_prompt(
        "Calculate the molar mass of calcium carbonate. Which of the following is it?\nA. 100\nB. 90"
    ),
    RequestText.from_prompt("qwx zyv plorf mnth grk vlad ptk"),
    RequestText.from_prompt("Hoe gaat het?"),
    RequestText.from_prompt("Какая столица Франции?"),
    RequestText.from_prompt("E = mc²"),
    RequestText("Describe this picture of a harbour at night.", 44, images=1),
    RequestText("and in French?", 14, turns=3, tools=True),
    RequestText.from_prompt("Write a function that sorts a list of words by their last letter. " * 200),
]


def kept_of(requests: list[RequestText]) -> tuple[list[Score], Kept, np.ndarray]:
    scores = [ROUTER.score(request) for request in requests]
    kept = unpack_many([pack(score.features) for score in scores], fingerprint())
    odd = np.array([bool(set(LASTING) & set(score.unfamiliar)) for score in scores])
    return scores, kept, odd


def one_by_one(kept: Kept, row: int, odd: bool) -> Score:
    """The router's own way from features to a score."""
    return ROUTER.score_features(kept.features(row), images=odd and bool(kept.words[row]))


def assert_same(kept: Kept, odd: np.ndarray) -> None:
    many = score_kept(ROUTER, kept, odd)
    for row in range(len(kept)):
        one = one_by_one(kept, row, bool(odd[row]))
        if kept.whole[row] > (kept.rarest[row] >= 0).sum():
            continue  # Words that were not kept count as seen among many, and one by one there is no telling.
        assert many.quality[row] == pytest.approx([one.quality[tier].p for tier in TIERS], abs=1e-4)
        assert many.low[row] == pytest.approx([one.quality[tier].low for tier in TIERS], abs=1e-4)
        assert many.high[row] == pytest.approx([one.quality[tier].high for tier in TIERS], abs=1e-4)
        assert many.tokens[row] == pytest.approx([one.expected_output_tokens[tier] for tier in TIERS], rel=1e-3)
        assert many.reasoning[row] == pytest.approx(one.expected_reasoning_tokens, rel=1e-3)
        assert many.shown[row] == pytest.approx(one.representation, abs=1e-3)
        assert many.rank[row] == pytest.approx(one.rank, abs=1e-3)
        assert many.familiarity[row] == pytest.approx(one.familiarity, abs=1e-3)
        assert bool(many.unseen_words[row]) == ("unseen_words" in one.unfamiliar)
        assert bool(many.unlike_training[row]) == ("unlike_training" in one.unfamiliar)


def test_many_at_once_are_scored_like_one_by_one() -> None:
    _, kept, odd = kept_of(REQUESTS)
    assert_same(kept, odd)


@given(st.lists(st.text(max_size=300), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_text_is_scored_alike(texts: list[str]) -> None:
    _, kept, odd = kept_of([RequestText.from_prompt(text) for text in texts])
    assert_same(kept, odd)


def test_a_kept_prompt_scores_nearly_as_it_did() -> None:
    scores, kept, odd = kept_of(REQUESTS)
    many = score_kept(ROUTER, kept, odd)
    assert many.familiarity == pytest.approx([score.familiarity for score in scores], abs=0.02)
    for row, score in enumerate(scores):
        assert many.quality[row] == pytest.approx([score.quality[tier].p for tier in TIERS], abs=0.02)
        assert many.tokens[row] == pytest.approx([score.expected_output_tokens[tier] for tier in TIERS], rel=0.15)


def test_no_prompts_are_no_error() -> None:
    assert len(score_kept(ROUTER, unpack_many([], fingerprint()), np.zeros(0, dtype=bool))) == 0
