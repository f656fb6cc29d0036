"""How lines meet and what separates classes that look alike, case by case, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from gateway.billing.reconcile.align import align, common_names, renamed
from gateway.billing.reconcile.classify import Known, classify
from gateway.billing.reconcile.desk import Finding
from gateway.billing.reconcile.lines import BillLine, BookLine
from gateway.money import PICO_PER_USD, amount_for

USD = PICO_PER_USD
DAY = date(2026, 9, 10)


def billed(quantity: int | None, usd: int = 10, **changes: Any) -> BillLine:
    """A line of the bill at a price that it does not state."""
    amount = changes.pop("amount", amount_for(quantity or 0, usd * USD))
    made = BillLine(changes.pop("position", 0), changes.pop("day", DAY), "m", "output", amount, quantity)
    return replace(made, **changes)


def noted(quantity: int, usd: int = 10, **changes: Any) -> BookLine:
    """What our book says at a price."""
    made = BookLine(
        changes.pop("day", DAY), "m", "output", "default", quantity, usd * USD, amount_for(quantity, usd * USD)
    )
    return replace(made, **changes)


def explained(bill: list[BillLine], book: list[BookLine], **known: Any) -> list[Finding]:
    """Every finding that differs."""
    names = common_names({line.model for line in book}, {line.model for line in bill if line.model}, {})
    bill = renamed(bill, names)
    found = classify(bill, align(bill, book, names), Known(models=names.served, **known))
    return [each for each in found if each.kind != "agreed"]


def test_usage_noted_in_priority_and_billed_in_the_default_tier_is_a_matter_of_tier() -> None:
    book = [noted(100), noted(50, 20, tier="priority")]
    rates = {("m", "output"): {10 * USD: "default", 20 * USD: "priority"}}
    [finding] = explained([billed(150)], book, rates=rates)
    assert finding.kind == "tier"
    assert finding.why == "billed at 10 USD per million, the price of default; noted as default, priority"
    [finding] = explained([billed(100, tier="default"), billed(50, tier="default")], book)
    assert finding.why == "the same tokens in another tier: default 150 instead of 100; priority 0 instead of 50"
    [finding] = explained([billed(50, tier="batch"), billed(100, 20, tier="priority")], [noted(150, tier="priority")])
    assert (finding.kind, len(finding.bill)) == ("tier", 2)


def test_an_amount_that_the_bills_own_price_does_not_give_does_not_pass_for_another_share_of_cached_input() -> None:
    wrong = billed(88_000, meter="input", rate=10 * USD, amount=1234 * USD, position=7)
    bill = [wrong, billed(32_000, meter="cache_read", rate=10 * USD)]
    book = [noted(100_000, meter="input"), noted(20_000, meter="cache_read")]
    why = "line 7 of the bill asks 1234 USD, and its 88000 units at 10 USD per million are 0.88 USD"
    price, other = explained(bill, book)
    assert (price.kind, price.why, price.variance) == ("price", why, 1233 * USD)
    assert (other.kind, other.variance) == ("missing", 12 * USD // 100)
    [finding] = explained([wrong], [noted(88_000, meter="input")])
    assert (finding.kind, finding.why) == ("price", why)
    right = replace(wrong, amount=88 * USD // 100)
    assert [each.kind for each in explained([right, bill[1]], book)] == ["cache_split"]


def test_the_price_of_before_a_change_is_a_price_and_no_tier() -> None:
    rates = {("m", "output"): {10 * USD: "default", 11 * USD: "default"}}
    [finding] = explained([billed(1000, 10)], [noted(1000, 11)], rates=rates)
    assert (finding.kind, finding.why) == ("price", "about 10 instead of 11 USD per million")


def test_a_long_context_is_a_tier_only_where_the_bill_tells_it_apart() -> None:
    book = [noted(100), noted(50, 20, tier="default+long")]
    assert explained([billed(100), billed(50, 20)], book) == []
    assert explained([billed(100), billed(50, 20, tier="default+long")], book) == []


def test_days_that_are_cut_elsewhere_are_timing_however_many_they_are() -> None:
    days = [date(2026, 9, number) for number in (3, 4, 5, 6)]
    book = [noted(100, day=day) for day in days]
    bill = [billed(quantity, day=day) for quantity, day in zip((90, 105, 102, 103), days, strict=True)]
    [finding] = explained(bill, book)
    assert (finding.kind, finding.variance, len(finding.bill)) == ("timing", 0, 4)
    apart = [billed(90, day=days[0]), *(billed(100, day=day) for day in days[1:3]), billed(110, day=days[3])]
    assert [each.kind for each in explained(apart, book)] == ["missing", "missing"], (
        "what agrees between them separates them"
    )


def test_the_month_before_explains_the_first_day() -> None:
    first, last = date(2026, 9, 1), date(2026, 8, 31)
    beyond = noted(40, day=last, billed=False, booked=False)
    [finding] = explained([billed(140, day=first)], [noted(100, day=first), beyond])
    assert (finding.kind, finding.variance) == ("timing", amount_for(40, 10 * USD))
    [finding] = explained([billed(139, day=first)], [noted(100, day=first), beyond])
    assert finding.kind == "missing"
    neighbours = (billed(30, day=last),)
    [finding] = explained([billed(110, day=first)], [noted(100, day=first), beyond], neighbours=neighbours)
    assert finding.kind == "timing", "their bill of August lacks ten of the forty, which stand here"


def test_a_finding_with_two_causes_has_the_class_of_the_larger_and_names_both() -> None:
    [finding] = explained([billed(90, 11)], [noted(100, 10)])
    assert (finding.kind, finding.variance) == ("missing", -10 * USD // 10**6 * 1)
    assert finding.why == "10 units less on the bill; -0.0001 USD of it by quantity, 0.00009 USD by price"
    [finding] = explained([billed(90, 20)], [noted(100, 10)])
    assert finding.kind == "price"
    [finding] = explained([billed(90)], [noted(100, estimated=True)])
    assert finding.why == "10 units less on the bill; 100 of ours are estimates of streams that broke"


def test_a_bill_without_quantities_is_explained_as_far_as_it_goes() -> None:
    rates = {("m", "output"): {5 * USD: "batch"}}
    [finding] = explained([billed(None, amount=amount_for(1000, 5 * USD))], [noted(1000)], rates=rates)
    assert finding.kind == "tier"
    [finding] = explained([billed(None, amount=7)], [noted(1000)])
    assert finding.kind == "unexplained"
    assert explained([billed(None, amount=amount_for(1000, 10 * USD))], [noted(1000)]) == []


def test_another_price_that_is_stated_is_no_rounding_however_small() -> None:
    within = {"rounding": 10**9}
    [finding] = explained([billed(10, amount=10**8 + 5)], [noted(10)], **within)
    assert (finding.kind, finding.why) == ("rounding", "within 0.001 USD")
    [finding] = explained([billed(10, 11, rate=11 * USD)], [noted(10)], **within)
    assert (finding.kind, finding.why) == ("price", "11 instead of 10 USD per million")


def test_reasoning_is_output_unless_the_bill_tells_it_apart() -> None:
    book = [noted(100), noted(900, meter="reasoning")]
    assert explained([billed(1000)], book) == []
    assert explained([billed(100), billed(900, meter="reasoning")], book) == []


NAMES: dict[str, tuple[set[str], set[str], dict[str, str], dict[str, str], dict[str, str]]] = {
    "the same": ({"a"}, {"a"}, {}, {"a": "a"}, {"a": "a"}),
    "a snapshot on the bill": ({"a"}, {"a-2026-01-02"}, {}, {"a-2026-01-02": "a-2026-01-02"}, {"a": "a-2026-01-02"}),
    "a name without a date beside its snapshot": (
        {"a", "a-20260102"}, {"a-20260102"}, {}, {"a-20260102": "a-20260102"}, {"a": "a-20260102", "a-20260102": "a-20260102"},
    ),
    "two snapshots of one name": (
        {"a"}, {"a-20260102", "a-20260304"}, {}, {"a-20260102": "a", "a-20260304": "a"}, {"a": "a"},
    ),
    "a snapshot that is not ours": (
        {"a-20260102"}, {"a-20260102", "a-20260304"}, {},
        {"a-20260102": "a-20260102", "a-20260304": "a-20260304"}, {"a-20260102": "a-20260102"},
    ),
    "given": ({"own"}, {"THEIRS", "OLD"}, {"THEIRS": "own", "OLD": "own"}, {"THEIRS": "own", "OLD": "own"}, {"own": "own"}),
    "strange": ({"a"}, {"b"}, {}, {"b": "b"}, {"a": "a"}),
}  # fmt: skip


@pytest.mark.parametrize("what", NAMES)
def test_models_meet_under_common_names(what: str) -> None:
    ours, theirs, given, of_bill, of_book = NAMES[what]
    names = common_names(ours, theirs, given)
    assert (names.of_bill, names.of_book) == (of_bill, of_book)
    assert names.served == set(of_book.values())


def test_duplicates_are_only_what_the_book_does_not_have() -> None:
    twice = [billed(100), billed(100)]
    assert explained(twice, [noted(200)]) == []
    assert [each.kind for each in explained(twice, [noted(100)])] == ["duplicate"]
    assert [(each.kind, len(each.bill)) for each in explained([*twice, billed(100)], [noted(200)])] == [
        ("duplicate", 1)
    ]
    different = [billed(100, account="p1"), billed(100, account="p2")]
    assert [each.kind for each in explained(different, [noted(100)])] == ["missing"]
