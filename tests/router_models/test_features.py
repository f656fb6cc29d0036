"""Features are the same numbers wherever they are computed: fixed values, no dependence on the process or its hash seed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_models.embedder import load
from router_models.features import MARKS, NAMES, extract, fingerprint
from router_models.request import RequestText

TABLE = load()
RECORDED = "160a0639cb8d918d"


def of(text: str) -> dict[str, float]:
    return dict(zip(NAMES, extract(RequestText.from_prompt(text), TABLE).shape.tolist(), strict=True))


def test_the_fingerprint_of_the_features_is_the_recorded_one() -> None:
    # A change here means that every artifact has to be trained again: raise FEATURES_VERSION and retrain.
    assert fingerprint(TABLE) == RECORDED


def test_the_fingerprint_does_not_depend_on_the_process() -> None:
    code = "from router_models.embedder import load; from router_models.features import fingerprint; print(fingerprint(load()))"
    environment = {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == RECORDED


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_features_of_any_text_are_finite_and_meanings_have_length_one_or_none(text: str) -> None:
    features = extract(RequestText.from_prompt(text), TABLE)
    assert np.all(np.isfinite(features.shape))
    assert features.shape.shape == (len(NAMES),)
    assert float(np.linalg.norm(features.meaning)) == pytest.approx(1.0, abs=1e-4) or not features.meaning.any()
    assert set(features.whole) <= set(range(len(TABLE.vocabulary)))
    assert len(features.whole) <= len(features.words)


def test_numerical_features_count_what_their_names_say() -> None:
    found = of("Which is larger, 3.5 or 7?\nA. 10\nB. 25\nC) neither")
    assert found["log_options"] == np.float32(np.log1p(3))
    assert found["log_digits"] == np.float32(np.log1p(7))
    assert found["log_question_numbers"] == np.float32(np.log1p(3))
    assert found["log_question_characters"] == np.float32(np.log1p(len("Which is larger, 3.5 or 7?")))
    assert found["log_lines"] == np.float32(np.log1p(3))
    assert found["question_before_options"] == 1.0
    assert found["question_at_end"] == 0.0
    assert found["which"] == 1.0
    assert found["share_decimals"] > 0.0
    assert of("Is it?")["question_at_end"] == 1.0
    assert of("")["log_words"] == 0.0
    assert of("東京")["share_other_scripts"] == 1.0
    assert of("Ask Mary and Tom about it.")["share_names"] > of("ask mary and tom about it.")["share_names"]


def test_rare_words_are_rarer_than_everyday_ones() -> None:
    assert of("eigenvalue cohomology polymerase")["rarity"] > of("house water friend")["rarity"]


@pytest.mark.parametrize(("mark", "words"), MARKS.items())
def test_every_mark_is_set_by_its_words_and_by_nothing_else(mark: str, words: frozenset[str]) -> None:
    for word in words:
        assert of(f"please {word.upper()} now")[mark] == 1.0
    assert of("please now")[mark] == 0.0
