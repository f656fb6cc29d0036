"""Which rate counts: by meter, context tier, service tier, region and moment."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from gateway.billing.cost import rate_usage
from gateway.billing.prices.choose import Price, marked_up, next_change, resolve
from gateway.types import METERS, PriceSheet, Usage
from tests.pricing import PICO, START, pair, price


def sheet(*prices: Price, region: str = "") -> PriceSheet:
    found = resolve(prices, START, region)
    assert found is not None
    return found


def test_what_has_no_price_of_its_own_costs_what_its_parent_costs() -> None:
    rates = sheet(*pair(3, 15), price("cache_write_5m", 3.75)).plain.rates
    assert rates["cache_read"] == rates["audio_input"] == rates["image_input"] == 3 * PICO
    assert rates["cache_write_1h"] == rates["cache_write_5m"] == 3_750_000_000_000
    assert rates["reasoning"] == rates["audio_output"] == 15 * PICO
    assert rates["gpu_seconds"] == 0


def test_a_model_without_both_input_and_output_is_not_priced_and_never_free() -> None:
    assert resolve([], START) is None
    assert resolve([price("input", 1)], START) is None
    assert resolve([price("output", 1)], START) is None
    assert resolve(pair(1, 2, least_tokens=1000), START) is None
    assert resolve(pair(1, 2, service_tier="flex"), START) is None


def test_gpu_time_alone_prices_an_engine() -> None:
    rates = sheet(price("gpu_seconds", 0.0006)).plain.rates
    assert rates["gpu_seconds"] == 600_000_000
    assert rates["input"] == rates["output"] == 0


def test_a_context_tier_reprices_the_whole_request() -> None:
    found = sheet(*pair(1.25, 10), *pair(2.5, 15, least_tokens=200_001))
    short = rate_usage(Usage(input=200_000, output=1000), found.at(200_000))
    long = rate_usage(Usage(input=200_001, output=1000), found.at(200_001))
    assert short.total == 200_000 * 1_250_000 + 1000 * 10_000_000
    assert long.total == 200_001 * 2_500_000 + 1000 * 15_000_000


def test_in_a_context_tier_a_meter_without_a_price_there_keeps_its_lower_one() -> None:
    found = sheet(*pair(1, 2), price("cache_read", 0.1), price("input", 3, least_tokens=1001))
    assert found.at(1001).rates["input"] == 3 * PICO
    assert found.at(1001).rates["cache_read"] == PICO // 10
    assert found.at(1001).rates["output"] == 2 * PICO


def test_the_replys_service_tier_counts_and_an_unknown_one_costs_the_default() -> None:
    found = sheet(*pair(2, 8), *pair(1, 4, service_tier="flex"), price("input", 3.5, service_tier="priority"))
    assert found.at(10, "flex").rates["output"] == 4 * PICO
    assert found.at(10, "priority").rates["input"] == 3_500_000_000_000
    assert found.at(10, "priority").rates["output"] == 8 * PICO
    for tier in (None, "default", "scale", "standard", ""):
        assert found.at(10, tier) is found.plain


def test_a_context_tier_counts_before_a_service_tier_that_does_not_know_it() -> None:
    found = sheet(*pair(2, 8), *pair(1, 4, service_tier="flex"), price("input", 4, least_tokens=1001))
    assert found.at(1000, "flex").rates["input"] == PICO
    assert found.at(1001, "flex").rates["input"] == 4 * PICO


def test_a_region_counts_before_everywhere_and_only_for_who_is_there() -> None:
    rows = [*pair(1, 2), price("input", 1.1, region="eu"), price("input", 0.9, region="us")]
    assert sheet(*rows, region="eu").plain.rates["input"] == 1_100_000_000_000
    assert sheet(*rows).plain.rates["input"] == PICO
    assert sheet(*rows, region="ap").plain.rates["input"] == PICO


def test_a_hold_is_the_dearest_that_can_apply() -> None:
    found = sheet(
        *pair(2, 8),
        *pair(1, 4, service_tier="flex"),
        *pair(3.5, 14, service_tier="priority"),
        *pair(4, 12, least_tokens=272_001),
    )
    assert found.dearest(1000).rates["input"] == 3_500_000_000_000
    assert found.dearest(1000, "auto").rates["output"] == 14 * PICO
    assert found.dearest(1000, "default").rates["input"] == 2 * PICO
    assert found.dearest(1000, "flex").rates["input"] == 2 * PICO, "a flex request may be served as default"
    assert found.dearest(300_000, "default").rates["input"] == 4 * PICO
    assert found.dearest(300_000).rates["output"] == 14 * PICO


def test_a_price_holds_from_its_first_moment_up_to_its_last_and_not_in_it() -> None:
    end = START + timedelta(days=1)
    rows = [*pair(1, 2, valid_to=end), *pair(5, 6, valid_from=end)]
    just_before = resolve(rows, end - timedelta(microseconds=1))
    at_the_end = resolve(rows, end)
    assert just_before is not None
    assert at_the_end is not None
    assert just_before.plain.rates["input"] == PICO
    assert at_the_end.plain.rates["input"] == 5 * PICO
    assert resolve(rows, START - timedelta(microseconds=1)) is None


def test_the_next_change_is_the_first_beginning_or_end() -> None:
    soon, later = START + timedelta(hours=1), START + timedelta(days=1)
    rows = [price("input", 1, valid_to=later), price("input", 2, valid_from=later), price("output", 1, valid_from=soon)]
    assert next_change(rows, START) == soon
    assert next_change(rows, soon) == later
    assert next_change(rows, later) is None


def test_a_list_names_the_rows_it_is_made_of_and_a_markup_is_exact_and_named() -> None:
    rows = [price("input", 0.07, id=7), price("output", 0.3, id=8), price("output", 0.2, id=9, service_tier="flex")]
    plain = sheet(*rows)
    marked = marked_up(plain, Decimal("12.5"))
    assert plain.plain.source == "book 7,8"
    assert plain.at(1, "flex").source == "book 7,9"
    assert marked.plain.source == "book 7,8 +12.5%"
    assert marked.plain.rates["input"] == 78_750_000_000
    assert marked.at(1, "flex").rates["output"] == 225_000_000_000
    assert marked_up(plain, Decimal(0)) is plain
    assert set(marked.plain.rates) == set(METERS)
