"""Invoices and credits: whatever the usage, the grants and the order of arrival, nothing is lost, made up or paid twice."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.grants.burn_down import Grant, burn_down, burn_order, pays_for
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.invoices.lines import UsageSum, add_up, credit_lines, tax_lines, tax_share, usage_lines
from gateway.billing.invoices.show import list_invoices, read_invoice
from gateway.billing.ledger import verify
from gateway.billing.periods.arrive import landing_period
from gateway.billing.periods.month import Month
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.errors import Conflict
from gateway.money import PICO_PER_CENT, format_cents, parse_cents, percent_of, to_cents
from gateway.types import METERS, Usage
from tests.invoicing import deliver, parties, used

SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END = datetime(2026, 11, 1, tzinfo=UTC)
PICO = st.integers(0, 10**18)
months = st.builds(Month, st.integers(2026, 2027), st.integers(1, 12))
moments = st.integers(-60, 60).map(lambda days: END + timedelta(days=days))
sums = st.lists(
    st.builds(
        UsageSum,
        months,
        st.sampled_from(["a", "b"]),
        st.sampled_from(METERS),
        st.integers(0, 9),
        st.integers(1, 9),
        PICO,
    ),
    max_size=8,
)
grants = st.lists(
    st.builds(
        Grant,
        id=st.uuids().map(str),
        tenant=st.just("acme"),
        amount_cents=st.just(10**6),
        left_cents=st.integers(0, 500),
        priority=st.integers(0, 2),
        effective_at=moments,
        expires_at=st.none() | moments,
        reason=st.just("x"),
        created_at=moments,
    ),
    max_size=8,
    unique_by=lambda grant: grant.id,
)


@given(st.integers(-(10**19), 10**19))
def test_cents_are_the_nearest_and_a_half_goes_away_from_zero(pico: int) -> None:
    cents = to_cents(pico)
    assert abs(cents * PICO_PER_CENT - pico) * 2 <= PICO_PER_CENT
    assert to_cents(-pico) == -cents
    if pico % PICO_PER_CENT == PICO_PER_CENT // 2:
        assert abs(cents) * PICO_PER_CENT > abs(pico)


@given(st.integers(0, 9 * 10**8))
def test_cents_are_read_back_from_their_own_text(cents: int) -> None:
    assert parse_cents(format_cents(cents), "amount") == cents


@given(sums, st.decimals(0, 100, places=4))
def test_lines_sum_to_the_total_and_the_rounding_is_what_is_between(found: list[UsageSum], percent: Decimal) -> None:
    lines = usage_lines(found, Month(2026, 10))
    assert len(lines) == len(found)
    whole = lines + tax_lines(add_up(lines).net_cents, percent, "VAT")
    totals = add_up(whole)
    assert totals.total_cents == sum(line.amount_cents for line in whole)
    assert totals.usage_cents == sum(line.amount_cents for line in lines)
    assert totals.usage_pico == sum(each.amount_pico for each in found)
    assert totals.usage_cents * PICO_PER_CENT == totals.usage_pico + totals.rounding_pico
    assert abs(totals.rounding_pico) * 2 <= PICO_PER_CENT * len(lines)
    assert abs(totals.tax_cents - totals.net_cents * percent / 100) <= Decimal("0.5")
    assert all((line.kind == "usage") == (line.charge_period == Month(2026, 10)) for line in lines)


@given(grants, st.integers(0, 2000))
def test_burn_down_is_in_order_and_conserves_money(given_grants: list[Grant], due: int) -> None:
    draws = burn_down(given_grants, due, END)
    usable = sorted((grant for grant in given_grants if pays_for(grant, END) and grant.left_cents), key=burn_order)
    assert sum(draw.cents for draw in draws) == min(due, sum(grant.left_cents for grant in usable))
    assert [draw.grant for draw in draws] == usable[: len(draws)]
    assert all(draw.cents == draw.grant.left_cents for draw in draws[:-1]), "only the last one is drawn in part"
    assert all(0 < draw.cents <= draw.grant.left_cents for draw in draws)
    assert burn_down(given_grants[::-1], due, END) == draws
    assert add_up(credit_lines(draws)).credits_cents == -sum(draw.cents for draw in draws)


@given(st.integers(1, 10**6), st.decimals(0, 100, places=4), st.lists(st.integers(1, 10**6), max_size=6))
def test_tax_of_credit_notes_adds_up_to_the_tax_of_the_invoice(net: int, percent: Decimal, parts: list[int]) -> None:
    tax = percent_of(net, percent)
    total, credited, returned = net + tax, 0, 0
    for part in [*parts, total]:
        amount = min(part, total - credited)
        share = tax_share(total, tax, credited, amount)
        assert 0 <= share <= amount
        credited, returned = credited + amount, returned + share
    assert (credited, returned) == (total, tax)


@given(months, st.sets(months, max_size=6))
def test_late_usage_lands_in_the_first_month_that_is_open(own: Month, taken: set[Month]) -> None:
    landed = landing_period(own, taken)
    assert landed >= own
    assert landed not in taken
    while own < landed:
        assert own in taken
        own = own.next


@SLOW
@given(st.data())
def test_any_order_of_usage_and_closes_gives_the_same_grand_total(data: st.DataObject) -> None:
    """Usage of three months arrives in any order among the closes of these months; afterwards everything is billed once."""
    events = [
        used(f"2026-0{data.draw(st.integers(7, 9))}-1{n}", Usage(input=data.draw(st.integers(1, 5000))))
        for n in range(6)
    ]
    steps = data.draw(st.permutations([*events, *(Month(2026, number) for number in (7, 8, 9))]))
    steps += [Month(2026, number) for number in (7, 8, 9, 10, 11)]
    now = datetime(2026, 12, 1, tzinfo=UTC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        for step in steps:
            if not isinstance(step, Month):
                deliver(database, folder, step)
                continue
            try:
                close_period(database, "acme", step, parties(), now)
            except Conflict:  # nothing there yet, or an earlier month is not closed, or closed already
                continue
        invoices = list_invoices(database)
        assert sum(invoice.totals.usage_pico for invoice in invoices) == sum(event.charge for event in events)
        assert sorted(str(each.number) for each in invoices) == [f"INV-{n:06d}" for n in range(1, len(invoices) + 1)]
        assert verify(database, folder).problems == ()
        database.close()


@SLOW
@given(st.lists(st.integers(1, 1500), max_size=6))
def test_credit_notes_never_exceed_the_invoice(amounts: list[int]) -> None:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        deliver(database, folder, used("2026-10-05"))
        total = close_period(database, "acme", Month(2026, 10), parties(), now).totals.total_cents
        accepted = 0
        for amount in amounts:
            try:
                accepted += credit_invoice(database, "INV-000001", amount, "x", now).amount_cents
            except Conflict:
                assert accepted + amount > total
        assert read_invoice(database, "INV-000001").credited_cents == accepted <= total
        assert verify(database, folder).problems == ()
        database.close()
