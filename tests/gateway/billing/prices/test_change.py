"""The rules of changing: what is plausible, and how a seed differs from the book."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.billing.prices.change import BY_HAND, compare, fingerprint
from gateway.billing.prices.choose import Price
from gateway.money import implausible
from gateway.types import Meter
from tests.pricing import PICO, price


@pytest.mark.parametrize(
    ("meter", "usd"),
    [("input", 0), ("input", 0.0005), ("input", 2.5), ("output", 600), ("reasoning", 2500), ("gpu_seconds", 0.0006)],
)
def test_a_price_of_the_market_and_nothing_at_all_are_plausible(meter: Meter, usd: float) -> None:
    assert implausible(meter, round(usd * PICO)) is None


@pytest.mark.parametrize(
    ("meter", "usd", "hint"),
    [
        ("input", 0.0000025, "a price per token is a million times smaller"),
        ("output", 0.00001, "a price per token is a million times smaller"),
        ("input", 2_500_000, "another unit"),
        ("output", 2500.01, "another unit"),
        ("gpu_seconds", 3600, "another unit"),
    ],
)
def test_a_price_in_the_wrong_unit_is_not(meter: Meter, usd: float, hint: str) -> None:
    problem = implausible(meter, round(usd * PICO))
    assert problem is not None
    assert hint in problem


def compared(old: list[Price], new: list[Price]) -> dict[str, list[str]]:
    found = compare({row.key: row for row in old}, new)
    return {
        name: [
            f"{(difference.new or difference.old).meter} {difference.percent}" for difference in getattr(found, name)
        ]  # type: ignore[union-attr]
        for name in ("added", "changed", "removed", "kept")
    }


def test_a_seed_is_compared_price_by_price() -> None:
    old = [price("input", 2, id=1), price("output", 8, id=2), price("reasoning", 0, id=3), price("cache_read", 1, id=4)]
    new = [price("input", 2), price("output", 9), price("reasoning", 1), price("audio_input", 1)]
    assert compared(old, new) == {
        "added": ["audio_input None"],
        "changed": ["output 12.5", "reasoning None"],
        "removed": ["cache_read None"],
        "kept": [],
    }


def test_what_a_person_has_set_is_kept_whatever_the_seed_says() -> None:
    old = [price("input", 2, source=BY_HAND), price("output", 8, source=BY_HAND), price("reasoning", 8, source="a map")]
    assert compared(old, [price("input", 3), price("reasoning", 8)]) == {
        "added": [],
        "changed": [],
        "removed": [],
        "kept": ["input 50.0"],
    }


def test_the_fingerprint_of_a_row_depends_on_everything_that_it_says() -> None:
    row = price("input", 2)
    others = [{"rate": 1}, {"meter": "output"}, {"owner": "x"}, {"least_tokens": 1}, {"region": "eu"}]
    prints = {fingerprint(row), *(fingerprint(dataclasses.replace(row, **changes)) for changes in others)}  # type: ignore[arg-type]
    assert len(prints) == 6
    assert all(len(text) == 64 for text in prints)
