"""Money: exact in, exact out, rounded once; whatever the usage and the prices are."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.cost import rate_usage
from gateway.billing.ledger import entries_of
from gateway.money import PICO_PER_USD, amount_for, format_usd, parse_usd, with_markup
from gateway.types import METERS, PriceList, Usage
from tests.usage import attempt, event

RATES = st.integers(0, 100_000 * PICO_PER_USD)
QUANTITIES = st.integers(0, 5_000_000)
usages = st.builds(Usage, **dict.fromkeys(METERS, QUANTITIES))
prices = st.builds(
    lambda rates: PriceList(dict(zip(METERS, rates, strict=True)), "any"), st.tuples(*[RATES] * len(METERS))
)


@given(st.integers(0, 9_000_000 * PICO_PER_USD))
def test_an_amount_is_read_back_from_its_own_text(pico: int) -> None:
    assert parse_usd(format_usd(pico), "amount") == pico


@given(st.integers(0, 50_000_000), RATES)
def test_an_amount_is_within_half_a_pico_of_the_exact_product(quantity: int, rate: int) -> None:
    exact = Decimal(quantity) * Decimal(rate) / 1_000_000
    assert abs(amount_for(quantity, rate) - exact) <= Decimal("0.5")


@given(RATES, st.decimals(0, 1000, places=6))
def test_a_markup_never_lowers_a_price_and_errs_by_half_a_unit_at_most(rate: int, percent: Decimal) -> None:
    marked = with_markup(rate, percent)
    assert marked >= rate
    assert abs(marked - Decimal(rate) * (100 + percent) / 100) <= Decimal("0.5")


@given(usages, prices)
def test_a_rated_usage_is_the_sum_of_its_lines_and_has_a_line_per_bucket(usage: Usage, price: PriceList) -> None:
    rated = rate_usage(usage, price)
    assert rated.total == sum(line.amount for line in rated.lines)
    assert [(line.meter, line.quantity) for line in rated.lines] == usage.quantities()
    assert all(line.amount == amount_for(line.quantity, line.rate) for line in rated.lines)


attempts = st.builds(
    lambda usage, cost, charge, model, provider: attempt(
        1, usage, cost=rate_usage(usage, cost), charge=rate_usage(usage, charge), model=model, provider=provider
    ),
    usages,
    prices,
    prices,
    st.sampled_from(["small", "large", "acme"]),
    st.sampled_from(["openai", "engine", "acme"]),
)


@given(st.lists(attempts, max_size=5))
def test_every_request_is_booked_as_a_transaction_that_sums_to_zero(calls: list) -> None:  # type: ignore[type-arg]
    finished = event(attempts=tuple(calls))
    entries = entries_of(finished)
    assert sum(entries.values()) == 0
    assert sum(amount for account, amount in entries.items() if account.kind == "receivable") == finished.charge
    assert sum(amount for account, amount in entries.items() if account.kind == "revenue") == -finished.charge
    assert sum(amount for account, amount in entries.items() if account.kind == "cost") == finished.cost
    assert sum(amount for account, amount in entries.items() if account.kind == "payable") == -finished.cost
