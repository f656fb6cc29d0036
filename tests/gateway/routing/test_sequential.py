"""Bounds that hold at every look: how often they are wrong over many looks, and how soon they see what is there."""

from __future__ import annotations

import random
from math import inf

import pytest

from gateway.routing.sequential import Seen, apart, bounded, paired, unbounded

ERROR = 0.05
LOOKS = (10, 20, 40, 80, 160, 320, 640)


def coins(seed: int, chance: float, count: int) -> list[float]:
    drawn = random.Random(seed)
    return [float(drawn.random() < chance) for _ in range(count)]


@pytest.mark.parametrize("chance", [0.05, 0.5, 0.9])
def test_over_all_looks_together_a_bound_is_wrong_no_more_often_than_it_says(chance: float) -> None:
    wrong_low = wrong_high = 0
    for seed in range(100):
        values = coins(seed, chance, LOOKS[-1])
        found = [bounded(values[:look], 0.0, 1.0, ERROR) for look in LOOKS]
        wrong_low += any(each.low > chance for each in found)
        wrong_high += any(each.high < chance for each in found)
    # Of 100 with an error of .05 more than 12 happen once in 1,000 times.
    assert wrong_low <= 12
    assert wrong_high <= 12


def test_bounds_never_widen_again_and_close_in_on_the_mean() -> None:
    values = coins(8, 0.3, 4000)
    found = [bounded(values[:count], 0.0, 1.0, ERROR) for count in (50, 200, 1000, 4000)]
    assert [each.low for each in found] == sorted(each.low for each in found)
    assert [each.high for each in found] == sorted((each.high for each in found), reverse=True)
    assert found[-1].high - found[-1].low < 0.1
    assert found[-1].low < 0.3 < found[-1].high


def test_limits_other_than_0_and_1_only_scale() -> None:
    values = coins(3, 0.6, 300)
    plain, scaled = bounded(values, 0.0, 1.0, ERROR), bounded([10 * each - 5 for each in values], -5.0, 5.0, ERROR)
    assert scaled.low == pytest.approx(10 * plain.low - 5)
    assert scaled.high == pytest.approx(10 * plain.high - 5)


def test_without_values_everything_is_possible() -> None:
    assert (bounded([], -1.0, 1.0, ERROR).low, bounded([], -1.0, 1.0, ERROR).high) == (-1.0, 1.0)
    assert (unbounded([1.0] * 10, ERROR).low, unbounded([1.0] * 10, ERROR).high) == (-inf, inf)


def test_values_without_limits_have_bounds_that_hold_at_every_look() -> None:
    wrong = 0
    for seed in range(100):
        drawn = random.Random(seed)
        values = [drawn.expovariate(1.0) for _ in range(3000)]
        found = [unbounded(values[:look], ERROR) for look in (100, 200, 400, 800, 1600, 3000)]
        wrong += any(each.high < 1.0 or each.low > 1.0 for each in found)
    assert wrong <= 18, "two sides of .05 each"
    assert found[-1].high - found[-1].low < 0.25


def test_what_changes_for_both_at_once_is_no_difference() -> None:
    drawn = random.Random(1)
    stream = []
    for number in range(4000):
        level = 0.9 if number < 2000 else 0.3
        stream.append(Seen(drawn.random() < (0.1 if number < 2000 else 0.4), float(drawn.random() < level)))
    found = bounded(paired(stream), -1.0, 1.0, ERROR)
    assert found.low < 0.0 < found.high
    plain = [sum(each.value for each in stream if each.second is side) for side in (True, False)]
    counts = [sum(each.second is side for each in stream) for side in (True, False)]
    assert plain[0] / counts[0] < plain[1] / counts[1] - 0.1, "means over everything would say that the second is worse"


def test_blocks_are_the_shortest_stretches_with_both() -> None:
    stream = [
        Seen(False, 1.0),
        Seen(False, 0.0),
        Seen(True, 1.0),
        Seen(True, 0.0),
        Seen(True, 0.0),
        Seen(False, 1.0),
        Seen(True, 1.0),
    ]
    assert paired(stream) == [0.5, -1.0]


def test_means_that_were_not_seen_side_by_side_have_wider_bounds() -> None:
    first, second = bounded(coins(1, 0.8, 500), 0.0, 1.0, ERROR), bounded(coins(2, 0.4, 500), 0.0, 1.0, ERROR)
    found = apart(second, first)
    assert found.low < second.mean - first.mean < found.high < 0.0
    assert found.high - found.low == pytest.approx(second.high - second.low + first.high - first.low)
