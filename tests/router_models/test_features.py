"""Features are the same numbers wherever they are computed: fixed values, no dependence on case tables or hash seeds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from router_models.features import BUCKETS, DENSE_NAMES, FINGERPRINT, SEEN_BITS, extract, word_places
from router_models.request import RequestText


def of(text: str) -> dict[str, float]:
    return dict(zip(DENSE_NAMES, extract(RequestText.from_prompt(text)).dense.tolist(), strict=True))


def test_the_fingerprint_of_the_features_is_the_recorded_one() -> None:
    # A change here means that every artifact has to be trained again: raise FEATURES_VERSION and retrain.
    assert FINGERPRINT == "e31d8f1044a8e1a5"


def test_the_fingerprint_does_not_depend_on_the_process() -> None:
    code = "from router_models.features import FINGERPRINT; print(FINGERPRINT)"
    environment = {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == FINGERPRINT


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_features_of_any_text_are_finite_and_within_their_tables(text: str) -> None:
    features = extract(RequestText.from_prompt(text))
    assert np.all(np.isfinite(features.dense))
    assert features.dense.shape == (len(DENSE_NAMES),)
    assert np.all((features.buckets >= 0) & (features.buckets < BUCKETS))
    assert np.all(np.diff(features.buckets) > 0)
    assert features.counts.sum() == max(2 * features.words.size - 1, 0)
    places = word_places(features.words)
    assert np.all((places >= 0) & (places < 1 << SEEN_BITS))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["alpha", "beta", "x1", "naïve", "東京", "42"]), min_size=1, max_size=12))
def test_a_words_hash_does_not_depend_on_where_it_stands(words: list[str]) -> None:
    alone = {word: int(extract(RequestText.from_prompt(word)).words[0]) for word in words}
    together = extract(RequestText.from_prompt(" ".join(words))).words.tolist()
    assert together == [alone[word] for word in words]


def test_words_are_read_without_case_and_digits_by_their_number_only() -> None:
    first = extract(RequestText.from_prompt("The Answer 42")).words
    second = extract(RequestText.from_prompt("the ANSWER 17")).words
    third = extract(RequestText.from_prompt("the answer 123")).words
    assert np.array_equal(first, second)
    assert first[2] != third[2]


def test_numerical_features_count_what_their_names_say() -> None:
    found = of("Which is larger?\nA. 10\nB. 25\nC) neither")
    assert found["log_options"] == np.float32(np.log1p(3))
    assert found["log_digits"] == np.float32(np.log1p(4))
    assert found["log_numbers"] == np.float32(np.log1p(2))
    assert found["log_lines"] == np.float32(np.log1p(3))
    assert found["question_at_end"] == 0.0
    assert of("Is it?")["question_at_end"] == 1.0
    assert of("")["log_words"] == 0.0
    assert of("東京")["share_other_scripts"] == 1.0
