"""The bundled embedder cuts words as its model's tokenizer does, finds like texts alike, and refuses damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece as ReferenceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from router_models.embedder import BUNDLED, load, save
from router_models.errors import ArtifactCorruptError, ArtifactNotFoundError
from router_models.wordpiece import REMEMBERED, WordPiece, read_words, words_of

TABLE = load()


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    numbers = {token: number for number, token in enumerate(TABLE.vocabulary)}
    tokenizer = Tokenizer(ReferenceModel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_any_ascii_text_is_cut_as_the_reference_tokenizer_cuts_it(text: str, reference: Tokenizer) -> None:
    assert TABLE.pieces.numbers(words_of(text)) == reference.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ["Über naïve café", "Москва и Київ", "東京 is 東京", "don't re-enter; e.g. x²+y²"])
def test_words_of_other_scripts_are_cut_as_the_reference_does(text: str, reference: Tokenizer) -> None:
    assert TABLE.pieces.numbers(words_of(text)) == reference.encode(text, add_special_tokens=False).ids


def test_texts_of_one_meaning_are_nearer_than_texts_of_another() -> None:
    first, like, other = (
        TABLE.embed(text)
        for text in (
            "How do I reset my password?",
            "I forgot my login password, how can I change it?",
            "The integral of a polynomial over a closed contour",
        )
    )
    assert first @ like > first @ other + 0.2


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_has_a_vector_of_length_one_or_zero(text: str) -> None:
    vector = TABLE.embed(text)
    assert vector.shape == (TABLE.dimensions,)
    assert vector.dtype == np.float32
    length = float(np.linalg.norm(vector))
    assert length == pytest.approx(1.0, abs=1e-4) or length == 0.0


def test_a_word_that_no_vocabulary_has_is_cut_and_a_monster_is_unknown() -> None:
    pieces = WordPiece(["[UNK]", "un", "##able", "##s"])
    assert pieces.numbers(["unables"]) == [1, 2, 3]
    assert pieces.numbers(["zzz", "u" * 101]) == [0, 0]


def test_the_memory_of_cut_words_is_bounded() -> None:
    pieces = WordPiece(["[UNK]", "a", "##b"])
    for number in range(REMEMBERED + 10):
        pieces.numbers([f"a{number}"])
    assert len(pieces._pieces) <= REMEMBERED


def test_the_bundled_table_is_small_and_names_its_source() -> None:
    assert BUNDLED.stat().st_size < 12_000_000
    assert TABLE.source["licence"] == "Apache-2.0"
    assert len(TABLE.source["weights_sha256"]) == 64


def test_a_saved_table_embeds_as_the_vectors_it_was_made_of(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 8))
    version = save(tmp_path / "t.npz", ["[UNK]", "red", "green", "blue"], vectors, {"licence": "none"})
    table = load(tmp_path / "t.npz")
    assert table.version == version
    found = table.embed("red")
    np.testing.assert_allclose(found, vectors[1] / np.linalg.norm(vectors[1]), atol=0.02)


def test_damaged_and_missing_tables_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"none\.npz"):
        load(tmp_path / "none.npz")
    content = bytearray(BUNDLED.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(bytes(content))
    with pytest.raises(ArtifactCorruptError, match="embedder"):
        load(tmp_path / "bad.npz")


MIXED = st.text(
    st.sampled_from(
        "abcXYZ019 .,_-?!'\n\té\u0301\u2019\u201c\u2013\u00a0\u00df\u4e2d\u6587\u0438\u0435\u00b0\u00d7\U0001f600"
    )
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), MIXED))
def test_words_read_apart_from_marks_are_the_same_words_and_marks(text: str) -> None:
    every, found = words_of(text), read_words(text)
    assert found.every == [word for word in every if word.isalnum()]
    marks = [mark for mark in every if not mark.isalnum() and mark.isprintable()]
    assert {mark for mark in found.marks if mark.isprintable()} == set(marks)
    assert found.marked >= len(marks)
    assert len(found.marks) == len(set(found.marks))
