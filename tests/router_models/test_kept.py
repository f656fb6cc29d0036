"""Features that are kept: small, of the same score afterwards, refused when they are of another release or damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_models.embedder import load
from router_models.errors import KeptFeaturesError
from router_models.features import extract
from router_models.kept import RAREST, Packer, fingerprint, pack, unpack, unpack_many, unseen_shares
from router_models.request import RequestText
from router_models.router import Router

ROUTER = Router.load()
PROMPTS = [
    "",
    "What is 2+2?",
    "Prove that the square root of two is irrational, and say why the proof by descent needs the well-ordering principle.",
    "Translate 'good morning' into Portuguese, Korean and Swahili.\nA. one\nB. two",
    " ".join(f"qwrtz{number} pharmacokinetics hyperbolic committee" for number in range(90)),
]


def test_what_is_unpacked_is_what_was_packed_within_its_rounding() -> None:
    for prompt in PROMPTS:
        features = extract(RequestText.from_prompt(prompt), load())
        packed = pack(features)
        assert len(packed) <= 450
        found = unpack(packed, fingerprint())
        assert np.allclose(found.shape, features.shape, rtol=1e-3, atol=1e-3)
        assert float(found.meaning @ features.meaning) > 0.999 or not features.words
        assert found.named == features.named
        assert bool(found.words) == bool(features.words)
        assert set(found.whole) <= set(features.whole)
        assert found.whole.size == min(features.whole.size, RAREST)


@given(st.lists(st.text(max_size=400), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_many_are_unpacked_like_one_by_one(texts: list[str]) -> None:
    packed = [pack(extract(RequestText.from_prompt(text), load())) for text in texts]
    many = unpack_many(packed, fingerprint())
    assert len(many) == len(texts)
    for row, each in enumerate(packed):
        one, other = unpack(each, fingerprint()), many.features(row)
        assert np.array_equal(one.shape, other.shape)
        assert np.array_equal(one.meaning, other.meaning)
        assert np.array_equal(one.whole, other.whole)
        assert one.named == other.named


def test_the_share_of_unseen_words_is_exact_for_short_prompts_and_near_for_long_ones() -> None:
    features = [extract(RequestText.from_prompt(prompt), load()) for prompt in PROMPTS]
    kept = unpack_many([pack(each) for each in features], fingerprint())
    shares = unseen_shares(kept, ROUTER.seen)
    exact = [ROUTER.unseen_share(each) for each in features]
    assert shares == pytest.approx(exact, abs=0.05)
    assert shares[:4] == pytest.approx(exact[:4])


def test_features_of_another_release_are_refused_with_the_way_out() -> None:
    packed = pack(extract(RequestText.from_prompt("hello"), load()))
    with pytest.raises(KeptFeaturesError, match=r"'0123' were kept by another release.*or prompts"):
        unpack(packed, "0123")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:50], lambda b: b"\x09" + b[1:], lambda b: b + b"\0" * 99, lambda b: b""]
)
def test_damaged_features_are_refused(damage: object) -> None:
    packed = pack(extract(RequestText.from_prompt("hello"), load()))
    with pytest.raises(KeptFeaturesError, match="damaged or were kept in another format"):
        unpack_many([packed, damage(packed)], fingerprint())  # type: ignore[operator]
    with pytest.raises(KeptFeaturesError, match="damaged or were kept in another format"):
        unpack_many([damage(packed)], fingerprint())  # type: ignore[operator]


def test_no_prompts_are_no_error() -> None:
    assert len(unpack_many([], fingerprint())) == 0


def test_the_packer_reads_the_text_that_the_router_reads() -> None:
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": "x" * 7000}]
    assert Packer().text(messages) == RequestText.from_messages(messages).text
    assert len(Packer().text(messages)) < 6_100
