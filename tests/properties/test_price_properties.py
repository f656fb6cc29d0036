"""The price book under any history: one rate for everything at every moment, the past never changes, holds cover charges."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.cost import rate_usage
from gateway.billing.prices.change import place
from gateway.billing.prices.choose import Price, marked_up, next_change, resolve
from gateway.types import METERS, SERVICE_TIERS, PriceSheet, Usage
from tests.pricing import PICO, START, price

MINUTE = timedelta(minutes=1)
STEPS = (0, 1001, 200_001)
rates = st.integers(0, 1000 * PICO)


@st.composite
def sheets(draw: st.DrawFn) -> PriceSheet:
    """Prices of one model: always input and output, and any others."""
    keys = st.tuples(st.sampled_from(METERS), st.sampled_from(SERVICE_TIERS), st.sampled_from(STEPS))
    found = {("input", "default", 0): draw(rates), ("output", "default", 0): draw(rates)}
    found |= draw(st.dictionaries(keys, rates, max_size=25))
    rows = [
        dataclasses.replace(price(meter, 0), rate=rate, service_tier=tier, least_tokens=least, id=number)  # type: ignore[arg-type]
        for number, ((meter, tier, least), rate) in enumerate(found.items(), 1)
    ]
    made = resolve(draw(st.permutations(rows)), START)
    assert made is not None
    return made


usages = st.builds(Usage, **dict.fromkeys(METERS, st.integers(0, 300_000)))
tiers = st.none() | st.sampled_from([*SERVICE_TIERS, "auto", "scale"])


@given(sheets(), st.integers(0, 500_000), tiers)
def test_every_meter_has_one_rate_in_every_tier_at_every_size(sheet: PriceSheet, tokens: int, tier: str | None) -> None:
    assert set(sheet.at(tokens, tier).rates) == set(METERS)
    for steps in sheet.steps.values():
        starts = [least for least, _ in steps]
        assert starts[0] == 0
        assert starts == sorted(set(starts))


@given(sheets(), usages, tiers)
def test_the_whole_request_is_rated_with_one_list(sheet: PriceSheet, usage: Usage, tier: str | None) -> None:
    chosen = sheet.at(usage.input_total, tier)
    rated = rate_usage(usage, chosen)
    assert [line.rate for line in rated.lines] == [chosen.rates[meter] for meter, _ in usage.quantities()]
    steps = sheet.steps.get(tier or "default", sheet.steps["default"])
    assert chosen is [found for least, found in steps if least <= usage.input_total][-1]


@given(sheets(), usages, st.integers(0, 100_000), tiers, st.sampled_from(SERVICE_TIERS))
def test_a_hold_covers_whatever_the_reply_may_be(
    sheet: PriceSheet, usage: Usage, unused: int, requested: str | None, served: str
) -> None:
    held = sheet.dearest(usage.input_total + unused, requested)
    possible = {"default", requested} if requested in SERVICE_TIERS and requested in sheet.steps else set(SERVICE_TIERS)
    if served in possible:
        charged = sheet.at(usage.input_total, served)
        assert all(charged.rates[meter] <= held.rates[meter] for meter in METERS)


@given(sheets(), st.decimals(0, 1000, places=4), st.integers(0, 500_000), tiers)
def test_a_markup_applies_to_every_list_alike(
    sheet: PriceSheet, percent: Decimal, tokens: int, tier: str | None
) -> None:
    plain, marked = sheet.at(tokens, tier), marked_up(sheet, percent).at(tokens, tier)
    for meter in METERS:
        exact = Decimal(plain.rates[meter]) * (100 + percent) / 100
        assert abs(marked.rates[meter] - exact) <= Decimal("0.5")


changes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), rates), min_size=1, max_size=12)
"""When a change is made, how many minutes later it begins, and its rate."""


def written(history: list[tuple[int, int, int]]) -> list[tuple[int, list[Price]]]:
    """The rows of one price after each change: (minute at which it was made, rows), as the database would have them."""
    rows: list[Price] = []
    states = []
    for number, (made, delay, rate) in enumerate(sorted(history, key=lambda change: change[0])):
        begins = START + (made + delay) * MINUTE
        placement = place(rows, begins)
        ends = dict(placement.ends)
        rows = [dataclasses.replace(row, valid_to=ends.get(row.id or 0, row.valid_to)) for row in rows]
        new = price("input", 0, valid_from=begins, valid_to=placement.valid_to, id=number + 1)
        rows.append(dataclasses.replace(new, rate=rate))
        states.append((made, rows))
    return states


@given(changes)
def test_at_most_one_row_is_valid_at_any_moment_whatever_the_order_of_changes(
    history: list[tuple[int, int, int]],
) -> None:
    for _, rows in written(history):
        for minute in range(125):
            for at in (START + minute * MINUTE, START + minute * MINUTE + MINUTE / 2):
                assert sum(row.is_valid(at) for row in rows) <= 1


@given(changes)
def test_a_change_takes_effect_when_it_says_and_never_alters_the_past(history: list[tuple[int, int, int]]) -> None:
    ordered = sorted(history, key=lambda change: change[0])
    before: list[Price] = []
    for (made, delay, rate), (_, rows) in zip(ordered, written(history), strict=True):
        begins = START + (made + delay) * MINUTE
        assert [row.rate for row in rows if row.is_valid(begins)] == [rate]
        for minute in range(made + delay):
            at = START + minute * MINUTE
            assert [row.id for row in rows if row.is_valid(at)] == [row.id for row in before if row.is_valid(at)]
        before = rows


@given(changes, st.integers(0, 130))
def test_between_two_changes_nothing_changes(history: list[tuple[int, int, int]], minute: int) -> None:
    rows = written(history)[-1][1]
    at = START + minute * MINUTE
    until = next_change(rows, at) or START + 200 * MINUTE
    valid = [row.id for row in rows if row.is_valid(at)]
    for moment in (at + (until - at) / 2, until - timedelta(microseconds=1)):
        assert [row.id for row in rows if row.is_valid(moment)] == valid
