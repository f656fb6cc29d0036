"""Measures of drift: silent over many windows without drift, loud when there is some; the arithmetic is that of the index."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from math import log

import pytest

from gateway.config_routing import Drift
from gateway.routing.drift import calibration_error, compare, describe, is_reference, stability_index
from gateway.routing.evidence.queries import Facts, Judged

RULES = Drift()


def requests(seed: int, count: int, hard: float = 0.0, tokens: float = 1.0, odd: float = 0.1) -> list[Facts]:
    drawn = random.Random(seed)
    return [
        Facts(
            rank=drawn.gauss(hard, 1.0),
            difficulty=drawn.betavariate(2 + max(0.0, 2 * hard), 3),
            unfamiliar=drawn.random() < odd,
            input_tokens=round(drawn.lognormvariate(5.0, 1.0) * tokens),
        )
        for _ in range(count)
    ]


def labels(seed: int, count: int, error: float = 0.0) -> list[Judged]:
    drawn, made = random.Random(seed), []
    for number in range(count):
        quality = tuple(sorted(drawn.betavariate(3, 2) for _ in range(3)))
        place = drawn.randrange(3)
        tier = ("economy", "standard", "premium")[place]
        score = float(drawn.random() < quality[place] - error)
        made.append(Judged(f"req_{number}", datetime.now(UTC), "v1", tier, score, quality, 100, "", None, None))
    return made


@pytest.mark.parametrize("count", [500, 5000])
def test_without_drift_there_is_no_alarm_over_many_windows(count: int) -> None:
    reference = describe(requests(0, 5000))
    for window in range(1, 201 if count == 500 else 31):
        found = compare(reference, requests(window, count), RULES)
        assert [each.measure for each in found] == ["rank", "difficulty", "input_tokens", "unfamiliar"]
        assert not any(each.drifted for each in found), (window, found)


def test_small_samples_do_not_alarm_by_chance_however_low_the_threshold() -> None:
    strict = Drift(stability=0.001, unfamiliar=0.001, least_requests=100)
    reference = describe(requests(0, 300))
    alarms = [
        each for window in range(1, 201) for each in compare(reference, requests(window, 200), strict) if each.drifted
    ]
    assert alarms == []


@pytest.mark.parametrize(
    ("changed", "measures"),
    [
        ({"hard": 1.0}, {"rank", "difficulty"}),
        ({"tokens": 4.0}, {"input_tokens"}),
        ({"odd": 0.5}, {"unfamiliar"}),
    ],
)
def test_planted_drift_is_found_where_it_was_planted(changed: dict[str, float], measures: set[str]) -> None:
    reference = describe(requests(0, 2000))
    found = compare(reference, requests(1, 600, **changed), RULES)
    assert {each.measure for each in found if each.drifted} == measures


def test_fewer_unfamiliar_prompts_are_no_alarm() -> None:
    found = compare(describe(requests(0, 2000, odd=0.6)), requests(1, 2000, odd=0.1), RULES)
    assert found[-1].value == pytest.approx(-0.5, abs=0.05)
    assert not found[-1].drifted


def test_too_few_requests_say_nothing() -> None:
    assert compare(describe(requests(0, 2000)), requests(1, RULES.least_requests - 1, hard=3), RULES) == []
    assert compare(describe(requests(0, 100)), requests(1, 2000, hard=3), RULES) == []


def test_the_index_is_that_of_the_formula() -> None:
    p, q, count = [0.5, 0.5], [0.8, 0.2], 1_000_000
    expected = (0.8 - 0.5) * log(0.8 / 0.5) + (0.2 - 0.5) * log(0.2 / 0.5)
    assert stability_index(p, q, count, count) == pytest.approx(expected, rel=1e-4)
    assert stability_index(p, p, 100, 100) == 0.0
    assert 2.0 < stability_index([1.0, 0.0], [0.0, 1.0], 100, 100) < 20.0, "empty parts make it large, not infinite"


def test_values_that_are_all_the_same_can_be_a_reference() -> None:
    same = [Facts(0.0, 0.5, False, 7)] * 600
    found = compare(describe(same), same, RULES)
    assert [each.value for each in found] == [0.0] * 4


def test_probabilities_that_come_true_are_no_alarm_and_others_are() -> None:
    for seed in range(60):
        found = calibration_error(labels(seed, 300), RULES)
        assert found is not None
        assert not found.drifted, found
    wrong = calibration_error(labels(1, 600, error=0.4), RULES)
    assert wrong is not None
    assert wrong.drifted
    assert wrong.value == pytest.approx(0.35, abs=0.1)
    assert calibration_error(labels(1, RULES.least_labels - 1, error=0.4), RULES) is None


def test_only_a_whole_reference_counts_as_one() -> None:
    whole = describe(requests(0, 100))
    assert is_reference(whole)
    assert not is_reference({**whole, "rank": None})
    assert not is_reference({name: value for name, value in whole.items() if name != "requests"})
    assert not is_reference("reference")
