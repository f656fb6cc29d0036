"""A month reconciled on real databases: planted errors are found and classified, accepted, taken back and signed off."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.reconcile.accept import decide
from gateway.billing.reconcile.drill_down import behind
from gateway.billing.reconcile.lines import Settings
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.billing.reconcile.show import Run
from gateway.billing.reconcile.sign_off import list_sign_offs, sign_off
from gateway.db.connect import Database
from gateway.errors import Conflict
from gateway.money import PICO_PER_USD, UNITS_PER_PRICE
from tests.month import deliver, requests
from tests.provider_bills import Row, as_csv, as_openai_pages, at, rows_of, total

SEPTEMBER = Month(2026, 9)
NOW = at("2026-10-05T09:00")
EXACT = Tolerances(rounding=0, variance=0)
Plant = Callable[[list[Row]], int]


@pytest.fixture
def books(database: Database, tmp_path: Path) -> Database:
    """A month of 150 requests with every bucket, in random order, and some of the months beside it."""
    events = requests(150) + requests(4, seed=2, since=at("2026-08-31"), until=at("2026-09-01"))
    random.Random(3).shuffle(events)
    deliver(database, tmp_path / "spool", events)
    return database


def run_with(database: Database, rows: list[Row], tolerances: Tolerances = EXACT, **how: object) -> Run:
    bill = read_bill("openai", SEPTEMBER, [as_csv(rows)], settings=Settings(**how))  # type: ignore[arg-type]
    import_bill(database, bill, NOW, "fin", replace=True)
    run = reconcile(database, "openai", SEPTEMBER, tolerances, NOW, "fin")
    assert sum(each.variance_pico for each in run.findings) == run.bill_pico - run.book_pico
    assert sorted(line for each in run.findings for line in each.bill_lines) == list(range(1, len(rows) + 1))
    return run


def found(run: Run) -> dict[str, int]:
    """Variance by class, of what differs."""
    sums: dict[str, int] = {}
    for each in run.findings:
        if each.kind != "agreed":
            sums[each.kind] = sums.get(each.kind, 0) + each.variance_pico
    return sums


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


def pick(rows: list[Row], meter: str, at_least: int = 100) -> Row:
    """A line in the first half of the month, of which there is another one on that day of its model."""
    return next(row for row in rows if row.meter == meter and row.quantity >= at_least and row.day > date(2026, 9, 2))


def plant_missing(rows: list[Row]) -> int:
    row = pick(rows, "output")
    rows.remove(row)
    return -row.amount


def plant_duplicate(rows: list[Row]) -> int:
    row = pick(rows, "input")
    rows.append(dataclasses.replace(row))
    return row.amount


def plant_price(rows: list[Row]) -> int:
    row = pick(rows, "cache_read")
    before = row.amount
    row.reprice(row.rate + PICO_PER_USD)
    return row.amount - before


def plant_tier(rows: list[Row]) -> int:
    row = pick(rows, "reasoning")
    before = row.amount
    row.tier = "priority"
    row.reprice(row.rate * 2)
    return row.amount - before


def plant_cache_split(rows: list[Row]) -> int:
    cached = [row for row in rows if row.meter == "cache_read"][-1]
    [fresh] = [row for row in rows if (row.day, row.model, row.meter) == (cached.day, cached.model, "input")]
    before = cached.amount + fresh.amount
    cached.quantity -= 40
    fresh.quantity += 40
    cached.reprice(cached.rate)
    fresh.reprice(fresh.rate)
    return cached.amount + fresh.amount - before


def plant_rounding(rows: list[Row]) -> int:
    row = pick(rows, "image_input", 1)
    row.amount += 3
    return 3


def plant_outside(rows: list[Row]) -> int:
    rows.append(Row(date(2026, 9, 9), "text-embedding-9", "input", 1000, PICO_PER_USD, 10**9, account="proj_x"))
    return 10**9


def plant_foreign_account(rows: list[Row]) -> int:
    twin = dataclasses.replace(pick(rows, "input"), account="proj_x")
    for row in rows:
        row.account = row.account or "proj_penstock"
    rows.append(twin)
    return twin.amount


def plant_timing(rows: list[Row]) -> int:
    row = pick(rows, "output")
    following = next(
        other for other in rows if (other.model, other.meter, other.rate) == (row.model, "output", row.rate)
        and (other.day - row.day).days == 1
    )  # fmt: skip
    before = row.amount + following.amount
    following.quantity += 50
    row.quantity -= 50
    for each in (row, following):
        each.reprice(each.rate)
    return row.amount + following.amount - before


def plant_credit(rows: list[Row]) -> int:
    rows.append(Row(date(2026, 9, 30), "", "other", 0, 0, -5 * PICO_PER_USD, description="credit grant"))
    return -5 * PICO_PER_USD


def plant_free_tier(rows: list[Row]) -> int:
    row = pick(rows, "audio_output", 1)
    before, row.amount, row.rate = row.amount, 0, 0
    return -before


PLANTED: dict[str, tuple[str, Plant]] = {
    "missing": ("missing", plant_missing),
    "duplicate": ("duplicate", plant_duplicate),
    "price": ("price", plant_price),
    "tier": ("tier", plant_tier),
    "cache split": ("cache_split", plant_cache_split),
    "rounding": ("rounding", plant_rounding),
    "outside by model": ("outside", plant_outside),
    "outside by account": ("outside", plant_foreign_account),
    "timing": ("timing", plant_timing),
    "credit": ("credit", plant_credit),
    "free tier": ("credit", plant_free_tier),
}


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


def test_accepting_posts_the_cost_and_allows_the_sign_off(books: Database, tmp_path: Path) -> None:
    rows = rows_of(books, SEPTEMBER)
    expected = {kind: plant(rows) for kind, plant in list(PLANTED.values())[:5]}
    run = run_with(books, rows)
    with pytest.raises(Conflict, match=r"USD of variance in 5 findings of run_\w+ is neither accepted nor disputed"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    with pytest.raises(ValueError, match="must not be empty"):
        decide(books, run.id, [1], "accepted", " ", "Fin", NOW)
    open_ones = [each.number for each in run.findings if each.state == "open"]
    assert len(open_ones) == 5
    disputed = next(each for each in run.findings if each.kind == "duplicate")
    decide(books, run.id, [disputed.number], "disputed", "asked for it back", "Fin", NOW)
    for each in set(open_ones) - {disputed.number}:
        run = decide(books, run.id, [each], "accepted", "checked", "Fin", NOW)
    with pytest.raises(Conflict, match="is accepted already, by Fin: checked"):
        decide(books, run.id, open_ones, "accepted", "again", "Fin", NOW)
    assert run.total("accepted") == sum(expected.values()) - expected["duplicate"]
    assert verify(books, tmp_path / "spool").problems == ()
    signed = sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "closed with the bill", NOW)
    assert signed.totals["accepted_pico"] + signed.totals["disputed_pico"] + run.book_pico == run.bill_pico
    with pytest.raises(Conflict, match="is signed off already, by Fin on 2026-10-05, and has not changed since"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)

    again = reconcile(books, "openai", SEPTEMBER, EXACT, NOW, "Fin")
    assert [each.state for each in again.findings if each.variance_pico] == [
        "disputed" if each.kind == "duplicate" else "accepted" for each in again.findings if each.variance_pico
    ]
    assert list_sign_offs(books)[0].changes == {}

    corrected = run_with(books, rows_of(books, SEPTEMBER))
    assert found(corrected) == {}
    assert verify(books, tmp_path / "spool").problems == ()
    [shown] = list_sign_offs(books)
    assert shown.changes["accepted_pico"] == (run.total("accepted"), 0)
    assert shown.changes["bill_pico"] == (run.bill_pico, corrected.bill_pico)
    assert sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "second bill", NOW).changes == {}


def test_usage_that_arrives_after_the_run_or_the_sign_off_is_not_overlooked(books: Database, tmp_path: Path) -> None:
    rows = rows_of(books, SEPTEMBER)
    run_with(books, rows)
    more = requests(3, seed=9)
    deliver(books, tmp_path / "later", more)
    with pytest.raises(Conflict, match=r"USD of usage has arrived since run_\w+; reconcile again"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    forced = sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW, force="the auditor waits")
    assert forced.forced is not None
    assert forced.forced.startswith("the auditor waits (")
    deliver(books, tmp_path / "latest", requests(3, seed=10))
    [signed] = list_sign_offs(books, "provider", "openai", "2026-09")
    assert signed.changes["requests"][1] > signed.changes["requests"][0]


def test_the_same_files_twice_change_nothing_and_other_files_must_replace(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    bill = read_bill("openai", SEPTEMBER, [as_csv(rows)])
    first, new = import_bill(books, bill, NOW, "fin")
    assert new
    assert import_bill(books, read_bill("openai", SEPTEMBER, [as_csv(rows, "other name.csv")]), NOW, "fin") == (
        first,
        False,
    )
    rows[0].amount += UNITS_PER_PRICE
    with pytest.raises(Conflict, match=r"has a bill already, imported 2026-10-05 09:00 from bill.csv.*--replace"):
        import_bill(books, read_bill("openai", SEPTEMBER, [as_csv(rows)]), NOW, "fin")


def test_reconciling_without_a_bill_and_signing_an_unfinished_month_say_so(books: Database) -> None:
    with pytest.raises(Conflict, match="no bill of 'openai' for 2026-09 is imported"):
        reconcile(books, "openai", SEPTEMBER, EXACT, NOW, "fin")
    with pytest.raises(Conflict, match="2026-10 has not ended"):
        sign_off(books, "provider", "openai", Month(2026, 10), "Fin", "", NOW)
    with pytest.raises(Conflict, match="no bill is imported"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    with pytest.raises(Conflict, match="it is open; `penstock invoice close` closes it"):
        sign_off(books, "tenant", "acme", SEPTEMBER, "Fin", "", NOW)
