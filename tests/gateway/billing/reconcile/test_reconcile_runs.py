"""A month reconciled on real databases: planted errors are found and classified, accepted, taken back and signed off."""

from __future__ import annotations

import dataclasses
from datetime import date

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.drill_down import behind
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.db.connect import Database
from tests.planted_errors import PLANTED, plant_free_tier
from tests.provider_bills import as_openai_pages, rows_of, total
from tests.reconciling import EXACT, NOW, SEPTEMBER, found, run_with


def test_a_bill_that_repeats_the_book_agrees_in_every_form(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    run = run_with(books, rows)
    assert found(run) == {}
    assert run.book_pico == total(rows) == run.bill_pico
    by_request = rows_of(books, SEPTEMBER, by_request=True)
    assert found(run_with(books, by_request)) == {}
    kept = [row for row in rows if row.meter != "cache_write_1h"]
    pages = as_openai_pages(kept, SEPTEMBER)
    bill = read_bill("openai", SEPTEMBER, pages[::-1])
    assert bill.total == total(kept)
    import_bill(books, bill, NOW, "fin", replace=True)
    run = reconcile(books, "openai", SEPTEMBER, EXACT, NOW, "fin")
    # OpenAI has no one-hour writes: the bill without them lacks exactly those.
    assert found(run) == {"missing": total(kept) - total(rows)}


def test_each_planted_error_is_found_alone_with_its_exact_amount(books: Database) -> None:
    for name, (kind, plant) in PLANTED.items():
        rows = rows_of(books, SEPTEMBER)
        expected = plant(rows)
        run = run_with(books, rows, Tolerances(rounding=5, variance=0), ours=("proj_penstock",))
        assert found(run) == {kind: expected}, name


def test_all_errors_at_once_are_all_found(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    expected: dict[str, int] = {}
    for kind, plant in PLANTED.values():
        if plant is not plant_free_tier:
            expected[kind] = expected.get(kind, 0) + plant(rows)
    run = run_with(books, rows, Tolerances(rounding=5, variance=0), ours=("proj_penstock",))
    assert found(run) == expected
    assert run.bill_pico - run.book_pico == sum(expected.values())


def test_a_request_that_the_bill_forgot_is_the_first_behind_its_finding(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    lost = rows_of(books, SEPTEMBER, by_request=True)[200]
    [row] = [
        row
        for row in rows
        if (row.day, row.model, row.meter, row.rate) == (lost.day, lost.model, lost.meter, lost.rate)
    ]
    row.quantity -= lost.quantity
    row.amount -= lost.amount
    run = run_with(books, rows)
    [finding] = [each for each in run.findings if each.kind != "agreed"]
    assert (finding.kind, finding.variance_pico) == ("missing", -lost.amount)
    page = behind(books, run.id, finding.number, limit=1)
    assert page.requests[0] == {"request_id": lost.request_id, "quantity": lost.quantity, "amount_pico": lost.amount,
                                "amount_usd": page.requests[0]["amount_usd"]}  # fmt: skip
    assert [line["quantity"] for line in page.bill_lines] == ([row.quantity] if row.quantity else [0])


def test_a_bill_by_request_is_matched_by_request_and_the_book_of_the_day_before_explains_timing(
    books: Database,
) -> None:
    rows = rows_of(books, SEPTEMBER, by_request=True)
    early = [row for row in rows_of(books, Month(2026, 8), by_request=True) if row.day == date(2026, 8, 31)]
    assert early
    for row in early:
        row.day = date(2026, 9, 1)
    twice = dataclasses.replace(rows[40])
    run = run_with(books, [*rows, *early, twice])
    assert found(run) == {"timing": total(early), "duplicate": twice.amount}


def test_a_bill_of_another_time_zone_is_compared_by_its_own_days(books: Database) -> None:
    pacific = "America/Los_Angeles"
    rows = rows_of(books, SEPTEMBER, zone=pacific)
    assert total(rows) != total(rows_of(books, SEPTEMBER))
    run = run_with(books, rows, zone=pacific)
    assert found(run) == {"timing": total(rows) - total(rows_of(books, SEPTEMBER))}
    assert len([each for each in run.findings if each.kind == "timing"]) == 1
    rows[0].reprice(rows[0].rate + 1_000_000_000)
    assert set(found(run_with(books, rows, zone=pacific))) == {"timing", "price"}
