"""Whatever stands in an artifact's header or arrays, it is refused by name or works; its checksum is right throughout."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from router_models import sealed
from router_models.artifact import BUNDLED, KIND, load
from router_models.errors import ArtifactError
from router_models.router import Router
from router_models.sound import VERSION
from router_models.tiers import TIERS

SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HEADER, ARRAYS = sealed.read(BUNDLED, KIND)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=10), each, max_size=4),
    max_leaves=12,
)


def sealed_bytes(header: dict[str, Any], arrays: dict[str, Any]) -> bytes:
    """A file with a checksum that fits, not compressed, which is what takes the time."""
    text = json.dumps({**header, "checksum": sealed.checksum(arrays)}).encode()
    made = io.BytesIO()
    np.savez(made, header=np.frombuffer(text, dtype=np.uint8), **arrays)
    return made.getvalue()


def opened(header: dict[str, Any], arrays: dict[str, Any]) -> Router | None:
    """The router of such a file; None where it is refused. Anything but an ArtifactError is a failure."""
    try:
        return Router(load(Path("made up"), content=sealed_bytes(header, arrays)))
    except ArtifactError as error:
        if len(str(error)) > 2000:
            raise AssertionError("a message says what is wrong and does not repeat the file") from error
        return None


def plain(value: Any) -> bool:
    return json.loads(json.dumps(value, allow_nan=False).encode()) == value


@SOME
@given(st.sampled_from([*HEADER, "else"]), values)
@example("card", [1])
@example("card", None)
@example("card", {"a": float("nan")})
@example("card", {"a": "\ud800"})
@example("card", {"a": "b\0"})
@example("domains", 5)
@example("domains", None)
@example("models", [None] * len(HEADER["models"]))
@example("version", None)
@example("version", "../../x")
@example("version", "a\0b")
@example("version", "x" * 201)
@example("format", 10**300)
@example("features", "x" * 10**6)
@example("tiers", {"a": []})
def test_a_header_of_anything_is_refused_by_name_or_means_what_it_says(name: str, value: Any) -> None:
    router = opened({**HEADER, name: value}, ARRAYS)
    if router is not None:
        assert VERSION.fullmatch(router.version)
        assert plain(router.card)
        assert len(router.artifact.domains) == len(router.artifact.weights.domain_shown)


@SOME
@given(st.sampled_from(sorted(HEADER)))
def test_a_header_without_one_of_its_parts_is_refused(name: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != name}
    assert opened(header, ARRAYS) is None or name == "checksum"


def spoiled(array: np.ndarray[Any, Any], how: str) -> Any:
    """An array with something wrong with it."""
    made = array.astype(np.float64 if array.dtype.kind == "f" else array.dtype).copy()
    if how in ("nan", "inf", "1e30", "1e300", "-1"):
        made = made.astype(np.float64)
        made.reshape(-1)[-1:] = float(how)
        return made
    if how == "times 1e30":
        return made * 1e30
    return {
        "reversed": lambda: made[::-1],
        "negative": lambda: -made.astype(np.float64),
        "zero": lambda: made * 0,
        "none": lambda: made[:0],
        "one number": lambda: np.array(3.0),
        "turned": lambda: made.T,
        "words": lambda: made.astype("U8"),
        "complex": lambda: made.astype(np.complex128),
        "pairs": lambda: np.zeros(made.shape, dtype=[("a", "f4"), ("b", "f4")]),
        "times": lambda: np.zeros(made.shape, dtype="M8[s]"),
    }[how]()


WAYS = [
    "nan",
    "inf",
    "1e30",
    "1e300",
    "-1",
    "times 1e30",
    "reversed",
    "negative",
    "zero",
    "none",
    "one number",
    "turned",
]
WAYS += ["words", "complex", "pairs", "times"]


@SOME
@given(st.sampled_from(sorted(ARRAYS)), st.sampled_from(WAYS))
def test_arrays_of_anything_are_refused_by_name_or_give_finite_scores(name: str, how: str) -> None:
    router = opened(HEADER, {**ARRAYS, name: spoiled(ARRAYS[name], how)})
    if router is not None:
        score = router.score_prompt("Prove that every bounded sequence has a convergent subsequence.")
        assert all(0.0 < score.quality[tier].p < 1.0 for tier in TIERS)
        assert all(math.isfinite(tokens) for tokens in score.expected_output_tokens.values())


@pytest.mark.parametrize(
    ("name", "how"),
    [("knots", "reversed"), ("kernel", "times 1e30"), ("home", "times 1e30"), ("scale", "zero"), ("landmarks", "none"),
     ("landmarks", "one number"), ("sample_input", "one number"), ("prior_spread", "zero"), ("shown", "negative"),
     ("half_width", "negative"), ("bias", "words")],
)  # fmt: skip
def test_numbers_that_no_training_gives_are_refused(name: str, how: str) -> None:
    assert opened(HEADER, {**ARRAYS, name: spoiled(ARRAYS[name], how)}) is None


def test_arrays_that_are_missing_are_refused() -> None:
    for name in ARRAYS:
        assert opened(HEADER, {key: array for key, array in ARRAYS.items() if key != name}) is None
    assert opened(HEADER, ARRAYS) is not None
