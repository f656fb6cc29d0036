"""Classification against any bill and book: variances sum to bill minus book, every line is in exactly one finding."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.reconcile.align import Names, align, common_names, renamed
from gateway.billing.reconcile.classify import Known, classify
from gateway.billing.reconcile.lines import BillLine, BookLine
from gateway.money import amount_for

DAYS = [date(2026, 9, 1) + timedelta(days=number) for number in range(4)]
small = st.sampled_from([0, 1, 5, 10, 15, 20, 1_000_000])
rates = st.sampled_from([0, 10**6, 2 * 10**6, 3 * 10**12])

bill_lines = st.builds(
    BillLine,
    position=st.just(0),
    day=st.sampled_from(DAYS),
    model=st.sampled_from(["m", "m-2026-01-01", "strange", None]),
    meter=st.sampled_from(["input", "cache_read", "output", "other"]),
    amount=st.integers(-50, 50) | st.sampled_from([10**12, 3 * 10**12]),
    quantity=st.none() | small,
    rate=st.none() | rates,
    tier=st.sampled_from([None, "default", "batch", "default+long"]),
    account=st.sampled_from([None, "ours", "theirs"]),
    request_id=st.sampled_from([None, None, "r1", "r2"]),
)


@st.composite
def book_lines(draw: st.DrawFn) -> BookLine:
    quantity, rate = draw(small), draw(rates)
    return BookLine(
        day=draw(st.sampled_from(DAYS)),
        model=draw(st.sampled_from(["m", "other"])),
        meter=draw(st.sampled_from(["input", "cache_read", "output", "reasoning"])),
        tier=draw(st.sampled_from(["default", "batch", "default+long"])),
        quantity=quantity,
        rate=rate,
        amount=amount_for(quantity, rate),
        request_id=draw(st.sampled_from(["r1", "r2", "r3"])),
        billed=draw(st.booleans()),
        booked=draw(st.booleans()),
    )


known = st.builds(
    Known,
    models=st.just(frozenset({"m", "m-2026-01-01"})),
    ours=st.sampled_from([frozenset(), frozenset({"ours"})]),
    rates=st.just({("m", "input"): {2 * 10**6: "batch"}}),
    rounding=st.sampled_from([0, 3]),
    neighbours=st.lists(bill_lines, max_size=3).map(tuple),
)


@given(bill=st.lists(bill_lines, max_size=14), book=st.lists(book_lines(), max_size=14), known=known)
def test_variances_sum_to_bill_less_book_and_every_line_is_explained_once(
    bill: list[BillLine], book: list[BookLine], known: Known
) -> None:
    bill = [BillLine(**{name: getattr(line, name) for name in line.__slots__} | {"position": n})
            for n, line in enumerate(bill)]  # fmt: skip
    names = common_names({"m", "other"}, {line.model for line in bill if line.model}, {})
    bill = renamed(bill, names)
    aligned = align(bill, book, names)
    found = classify(bill, aligned, known)
    booked = [line for line in aligned if line.booked]
    assert sum(each.variance for each in found) == sum(x.amount for x in bill) - sum(x.amount for x in booked)
    assert Counter(line.position for each in found for line in each.bill) == Counter(range(len(bill)))
    ours = [line for line in aligned if line.billed or line.booked]
    assert Counter(line for each in found for line in each.book) == Counter(ours)
    assert all(each.variance == 0 for each in found if each.kind == "agreed")


@given(book=st.lists(book_lines(), max_size=14))
def test_a_bill_that_repeats_the_book_agrees_everywhere(book: list[BookLine]) -> None:
    book = [BookLine(**{name: getattr(line, name) for name in line.__slots__} | {"billed": True, "booked": True})
            for line in book]  # fmt: skip
    bill = [
        BillLine(number, line.day, line.model, line.meter, line.amount, line.quantity, line.rate, line.tier,
                 request_id=line.request_id)
        for number, line in enumerate(book)
    ]  # fmt: skip
    found = classify(bill, align(bill, book, Names({}, {})), Known(models=frozenset({"m", "other"})))
    assert {each.kind for each in found} <= {"agreed"}
