"""What is done about a challenger: the bad one is taken back, the good one never, whichever way it is bad."""

from __future__ import annotations

import random
from collections.abc import Callable

from gateway.config_routing import Rollback
from gateway.routing.compare import Evidence, Judgement, judge
from gateway.routing.evidence.queries import Graded, Routed

RULES = Rollback()


def evidence(
    seed: int,
    quality: float = 0.0,
    cost: float = 1.0,
    failing: float = 0.0,
    seconds: float = 1.0,
    count: int = 4000,
    share: float = 0.2,
    labelled: float = 1.0,
    together: bool = True,
) -> Evidence:
    """A challenger whose answers are better by `quality`, cost and take so many times as much, and fail more often."""
    drawn = random.Random(seed)
    requests: list[Routed] = []
    grades: list[Graded] = []
    for number in range(count):
        second = drawn.random() < share if together else number > count // 2
        name = "new" if second else "old"
        failed = drawn.random() < 0.02 + (failing if second else 0.0)
        price = drawn.expovariate(1.0) * 1e9 * (cost if second else 1.0)
        requests.append(Routed(name, round(price), failed, drawn.expovariate(0.5) * (seconds if second else 1.0)))
        if drawn.random() < labelled:
            grades.append(Graded(name, float(drawn.random() < 0.7 + (quality if second else 0.0))))
    return Evidence("old", "new", requests, grades, together)


def first_decision(make: Callable[[int], Evidence], rules: Rollback = RULES) -> Judgement:
    """The first look of many, ever more requests, that decides; else the last one."""
    for count in (250, 500, 1000, 2000, 4000):
        found = judge(make(count), rules)
        if found.outcome != "keep":
            break
    return found


def outcomes(rules: Rollback = RULES, seeds: int = 12, **changes: float) -> list[str]:
    return [
        first_decision(lambda count, seed=seed: evidence(seed, count=count, **changes), rules).outcome  # type: ignore[arg-type, misc]
        for seed in range(seeds)
    ]


def test_one_that_is_as_good_is_kept() -> None:
    assert outcomes(seeds=25).count("rollback") <= 2
    assert outcomes(together=False, seeds=12).count("rollback") <= 1


def test_one_that_loses_no_more_than_the_margin_is_kept() -> None:
    assert outcomes(quality=-RULES.margin, seeds=20).count("rollback") <= 2


def test_one_whose_answers_are_worse_is_taken_back() -> None:
    assert outcomes(quality=-0.2) == ["rollback"] * 12
    assert outcomes(quality=-0.25, together=False) == ["rollback"] * 12


def test_what_is_worse_is_said_in_numbers() -> None:
    found = judge(evidence(1, quality=-0.3), RULES)
    assert found.reason.startswith("new answers worse by more than 0.02: difference of quality -0.3")
    assert found.comparison.quality.high < -RULES.margin
    assert set(found.comparison.document()) == {"quality", "failures", "cost", "seconds", "labels", "requests"}


def test_few_labels_decide_nothing_however_bad_they_are() -> None:
    few = Evidence(
        "old", "new", [], [Graded(name, float(name == "old")) for _ in range(40) for name in ("old", "new")], True
    )
    assert judge(few, RULES).outcome == "keep"
    assert judge(few, Rollback(least_labels=10)).outcome == "rollback"


def test_one_whose_requests_fail_is_taken_back_without_any_label() -> None:
    found = judge(evidence(2, failing=0.4, labelled=0.0), RULES)
    assert (found.outcome, found.reason[:28]) == ("rollback", "more requests of new fail: a")


def test_one_that_is_much_slower_is_taken_back() -> None:
    assert judge(evidence(3, seconds=4.0), RULES).reason.startswith("requests of new take longer")


def test_one_that_costs_much_more_is_taken_back_unless_it_answers_better() -> None:
    assert judge(evidence(4, cost=3.0), RULES).reason.startswith("new costs more (+")
    assert judge(evidence(4, cost=3.0, quality=0.25), RULES).outcome == "keep"
    assert judge(evidence(4, cost=1.2), RULES).outcome == "keep"


def test_a_better_or_a_cheaper_one_is_promoted_only_where_that_is_asked_for() -> None:
    eager = Rollback(promote=True, margin=0.1)
    assert judge(evidence(5, quality=0.25), RULES).outcome == "keep"
    assert judge(evidence(5, quality=0.25), eager).outcome == "promote"
    assert judge(evidence(6, cost=0.5), eager).reason.startswith("new costs less (-")
    assert judge(evidence(7), eager).outcome == "keep"
    assert judge(evidence(5, quality=0.25, together=False), eager).outcome == "keep", "it is champion already"
