"""Aggregating charges into FOCUS rows, for any of them: exact products, exact totals, whatever order the lines come in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from decimal import Context, Decimal, Inexact, localcontext
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.exports.charges import Charge, PriceTerms, merged
from gateway.billing.exports.columns import Cell, decimal, decimal_text
from gateway.billing.exports.focus import NAMES, Perspective, cost_and_usage, invoice_rows
from gateway.billing.exports.invoiced import Coverage, lines_of_invoice
from gateway.billing.exports.month import slices
from gateway.billing.invoices.document import Invoice
from gateway.billing.invoices.lines import UsageSum, add_up, tax_lines, usage_lines
from gateway.billing.periods.month import Month
from gateway.money import MAX_PRICE_USD, PICO_PER_USD, amount_for
from gateway.types import METERS, Meter

EXACT = Context(prec=200, traps=[Inexact])
PERSPECTIVE = Perspective("tenant", "Penstock", Month.parse("2026-09"))

quantities = st.integers(1, 50_000_000)
rates = st.integers(0, int(MAX_PRICE_USD) * PICO_PER_USD)


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    """What SQL sums up: some rated lines of one rate, each rounded by itself."""
    rate = draw(rates)
    parts = draw(st.lists(quantities, min_size=1, max_size=6))
    return Charge(
        day=date(2026, 9, 1) + timedelta(days=draw(st.integers(0, 29))),
        tenant=draw(st.sampled_from(["acme", "globex"])),
        project=draw(st.sampled_from([None, "", "red"])),
        provider=draw(st.sampled_from(["openai", "bundled"])),
        model=draw(st.sampled_from(["small", "large"])),
        upstream_model="m",
        meter=draw(st.sampled_from(METERS)),
        rate=rate,
        status=draw(st.sampled_from(["ok", "cut"])),
        estimated=draw(st.booleans()),
        quantity=sum(parts),
        amount=sum(amount_for(part, rate) for part in parts),
        lines=len(parts),
        late=False,
        service_tier=draw(st.sampled_from([None, "", "flex"])),
        terms=PriceTerms("default", draw(st.sampled_from(["", "eu"])), draw(st.sampled_from([0, 200_001]))),
        tags=draw(st.sampled_from([(), (("team", "red"),), (("team", True),)])),
    )


def rows_of(found: list[Charge]) -> list[dict[str, Cell]]:
    return [dict(zip(NAMES, row, strict=True)) for row in cost_and_usage(found, PERSPECTIVE, Coverage())]


def as_decimal(value: Cell) -> Decimal:
    assert isinstance(value, Decimal)
    return value


@given(st.lists(charges(), max_size=8))
def test_price_times_quantity_is_the_cost_and_the_total_is_the_ledgers(found: list[Charge]) -> None:
    rows = rows_of(found)
    with localcontext(EXACT):
        for row in rows:
            if row["ListUnitPrice"] is not None:
                assert row["BilledCost"] == as_decimal(row["ListUnitPrice"]) * as_decimal(row["PricingQuantity"])
        total = sum((as_decimal(row["BilledCost"]) for row in rows), Decimal(0))
        assert total == Decimal(sum(one.amount for one in found)) / PICO_PER_USD


@given(st.lists(charges(), max_size=8), st.randoms(use_true_random=False))
def test_the_rows_do_not_depend_on_the_order_of_the_lines(found: list[Charge], draw: object) -> None:
    shuffled = list(found)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]

    def by_text(row: dict[str, Cell]) -> list[str]:
        return [str(value) for value in row.values()]

    assert sorted(map(by_text, rows_of(found))) == sorted(map(by_text, rows_of(shuffled)))


@given(st.lists(charges(), max_size=8), st.randoms(use_true_random=False))
def test_merging_keeps_every_sum_and_ends_in_one_order(found: list[Charge], draw: object) -> None:
    shuffled = [*found, *found]
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = merged([*found, *found]), merged(shuffled)
    assert one == other
    assert len({charge.grain for charge in one}) == len(one)
    for name in ("quantity", "amount", "lines"):
        assert sum(getattr(charge, name) for charge in one) == 2 * sum(getattr(charge, name) for charge in found)


def invoice_of(found: list[Charge]) -> Invoice:
    """What acme's charges make, as the close of a month makes it."""
    sums: dict[tuple[Month, str, Meter, int], list[int]] = {}
    for one in found:
        key = (Month(one.day.year, one.day.month), one.model, one.meter, one.rate)
        so_far = sums.setdefault(key, [0, 0])
        so_far[0] += one.quantity
        so_far[1] += one.amount
    lines = usage_lines([UsageSum(*key, *amounts) for key, amounts in sums.items()], PERSPECTIVE.month)
    lines += tax_lines(add_up(lines).net_cents, Decimal(19), "VAT")
    now = PERSPECTIVE.month.end
    return Invoice("invoice_1", "acme", PERSPECTIVE.month, "finalised", "INV-1", {"name": "Penstock"}, {}, "USD", lines,
                   add_up(lines), (), now, now, now, None, None)  # fmt: skip


@given(st.lists(charges(), max_size=8), st.randoms(use_true_random=False))
def test_an_invoice_line_is_exactly_the_sum_of_its_rows_and_the_rest_is_the_ledgers(
    found: list[Charge], draw: Random
) -> None:
    # Some usage is of August, and late.
    found = [replace(one, day=date(2026, 8, 9), late=True) if draw.random() < 0.3 else one for one in found]
    invoice = invoice_of([one for one in found if one.tenant == "acme"])
    coverage = Coverage(tuple(lines_of_invoice(invoice)))
    rows = [*cost_and_usage(found, PERSPECTIVE, coverage), *invoice_rows(coverage, PERSPECTIVE)]
    sums: dict[Cell, Decimal] = defaultdict(Decimal)
    with localcontext(EXACT):
        for row in rows:
            named = dict(zip(NAMES, row, strict=True))
            sums[named["x_InvoiceLine"]] += as_decimal(named["BilledCost"])
        others = Decimal(sum(one.amount for one in found if one.tenant != "acme")) / PICO_PER_USD
        assert sums.pop(None, Decimal(0)) == others
        for position, line in enumerate(invoice.lines, 1):
            assert sums.pop(f"INV-1/{position}", Decimal(0)) == Decimal(line.amount_cents) / 100
    assert not sums


@given(charges())
def test_rounding_is_less_than_a_pico_per_line_and_of_the_same_day_and_tenant(charge: Charge) -> None:
    per_place: dict[str, list[dict[str, Cell]]] = defaultdict(list)
    for row in rows_of([charge, replace(charge, rate=0, amount=0)]):
        per_place[str(row["ChargeCategory"])].append(row)
    assert len(per_place["Adjustment"]) <= 1
    for row in per_place["Adjustment"]:
        assert abs(as_decimal(row["BilledCost"])) * PICO_PER_USD <= Decimal(charge.lines) / 2
        assert row["ChargePeriodStart"] == per_place["Usage"][0]["ChargePeriodStart"]
        assert row["BillingAccountId"] == charge.tenant


@given(st.integers(-(10**37), 10**37), st.integers(0, 18))
def test_decimals_are_written_exactly_with_a_point_and_without_an_exponent(units: int, places: int) -> None:
    text = decimal_text(decimal(units, places))
    assert "." in text
    assert "E" not in text
    with localcontext(EXACT):
        assert Decimal(text) * 10**places == units


@given(st.integers(2000, 2100), st.integers(1, 12))
def test_the_slices_of_a_month_touch_and_cover_it(year: int, number: int) -> None:
    month = Month.parse(f"{year}-{number:02d}")
    days = list(slices(month, ()))
    assert days[0].since == month.start
    assert days[-1].until == month.end
    assert all(one.until == other.since for one, other in pairwise(days))
