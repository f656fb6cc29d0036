"""A price map becomes rows: every key by one grammar, what is not imported named or counted, the real map as well."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.prices.choose import resolve
from gateway.billing.prices.seed import DISTRIBUTION, FILE, Meaning, Seed, installed_map, meaning, read_map
from gateway.errors import ConfigError
from gateway.money import format_usd
from tests.pricing import START


def seed_of(folder: Path, document: Any) -> Seed:
    path = folder / "map.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_map(path, "a map", START)


def read(folder: Path, **entry: Any) -> dict[str, str]:
    """What one entry says: 'meter tier least' -> USD per million."""
    seed = seed_of(folder, {"m": {"litellm_provider": "openai", **entry}})
    return {
        f"{row.meter} {row.service_tier} {row.least_tokens}": format_usd(row.rate)
        for row in sorted(seed.prices, key=lambda row: (row.least_tokens, row.service_tier))
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("input_cost_per_token", Meaning("input", 0, "default")),
        ("output_cost_per_token_batches", Meaning("output", 0, "batch")),
        ("output_cost_per_reasoning_token", Meaning("reasoning", 0, "default")),
        ("input_cost_per_audio_token_priority", Meaning("audio_input", 0, "priority")),
        ("input_cost_per_image_token", Meaning("image_input", 0, "default")),
        ("output_cost_per_audio_token", Meaning("audio_output", 0, "default")),
        ("input_cost_per_token_cache_hit", Meaning("cache_read", 0, "default")),
        ("cache_read_input_token_cost_above_272k_tokens_flex", Meaning("cache_read", 272, "flex")),
        ("cache_creation_input_token_cost", Meaning("cache_write_5m", 0, "default")),
        ("cache_creation_input_token_cost_above_1hr", Meaning("cache_write_1h", 0, "default")),
        ("cache_creation_input_token_cost_above_1hr_above_200k_tokens", Meaning("cache_write_1h", 200, "default")),
        ("cache_creation_input_token_cost_above_12hr_flex", "cache lifetime 12hr"),
        ("cache_creation_input_token_cost_above_30m", "cache lifetime 30m"),
        ("input_cost_per_token_above_1hr", "cache lifetime 1hr"),
        ("input_cost_per_token_ultrafast", "service tier ultrafast"),
        ("output_cost_per_image_token", "not a price per token of text, audio or image input"),
        ("cache_read_input_audio_token_cost", "not a price per token of text, audio or image input"),
        ("output_cost_per_image", "not a price per token"),
        ("off_peak_pricing", "not a price per token"),
    ],
)
def test_a_key_is_read_by_the_grammar(key: str, expected: Meaning | str) -> None:
    assert meaning(key) == expected


def test_a_price_per_token_becomes_an_exact_price_per_million(tmp_path: Path) -> None:
    assert read(tmp_path, input_cost_per_token=2.5e-06, output_cost_per_token="1e-5") == {
        "input default 0": "2.5",
        "output default 0": "10",
    }


def test_float_noise_is_stripped_and_what_is_no_noise_stays(tmp_path: Path) -> None:
    assert read(tmp_path, input_cost_per_token=3.0000000000000004e-07) == {"input default 0": "0.3"}
    assert read(tmp_path, input_cost_per_token=1.234567891e-07) == {"input default 0": "0.1234567891"}


def test_a_context_tier_begins_above_its_threshold_and_at_xai_with_it(tmp_path: Path) -> None:
    entry = {"input_cost_per_token": 1e-6, "input_cost_per_token_above_200k_tokens": 2e-6}
    assert read(tmp_path, **entry) == {"input default 0": "1", "input default 200001": "2"}
    assert read(tmp_path, **entry, litellm_provider="xai") == {"input default 0": "1", "input default 200000": "2"}


def test_a_list_of_ranges_is_context_tiers_as_well(tmp_path: Path) -> None:
    ranges = [
        {"input_cost_per_token": 5e-8, "output_cost_per_token": 4e-7, "range": [0, 256000.0]},
        {"input_cost_per_token": 2.5e-7, "output_cost_per_token": 2e-6, "range": [256000.0, 1000000.0]},
    ]
    assert read(tmp_path, tiered_pricing=ranges) == {
        "input default 0": "0.05",
        "output default 0": "0.4",
        "input default 256001": "0.25",
        "output default 256001": "2",
    }


def test_two_names_of_one_price_make_one_row(tmp_path: Path) -> None:
    found = read(tmp_path, input_cost_per_token_cache_hit=9e-7, cache_read_input_token_cost=1e-7)
    assert found == {"cache_read default 0": "0.1"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1e-6, "must not be negative"),
        (float("nan"), "must be finite"),
        (float("inf"), "must be finite"),
        (2.5, "not plausible"),
        (1e300, "must be at most"),
        (2.5e-12, "not plausible"),
        ("1e-6 EUR", "is not a number"),
        ("", "is not a number"),
        (True, "is not a number"),
        (None, "is not a number"),
        ([1e-6], "is not a number"),
        (1.14285714285714e-06, "more than 12 decimals"),
    ],
)
def test_a_wrong_value_refuses_its_key_by_name_and_nothing_else(tmp_path: Path, value: Any, reason: str) -> None:
    entry = {"litellm_provider": "openai", "input_cost_per_token": value, "output_cost_per_token": 1e-6}
    seed = seed_of(tmp_path, {"m": entry})
    assert [row.meter for row in seed.prices] == ["output"]
    [refused] = seed.refused
    assert refused.startswith("m: input_cost_per_token: ")
    assert reason in refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "one object of prices per model"),
        ('{"m": 1}', "one object of prices per model"),
        ("[" * 100_000, "is not JSON"),
        ('{"m": {"litellm_provider": "x", "input_cost_per_token": 1e9999999999999999999999}}', "is not JSON"),
    ],
)
def test_a_file_that_is_no_price_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        seed_of(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the price map .*nowhere.json"):
        read_map(tmp_path / "nowhere.json", "a map", START)


def test_odd_entries_are_counted_and_change_nothing(tmp_path: Path) -> None:
    seed = seed_of(
        tmp_path,
        {
            "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 1},
            "nobody": {"input_cost_per_token": 1e-6},
            "ranges": {"litellm_provider": "x", "tiered_pricing": [1, {"range": "all", "input_cost_per_token": 1e-6}]},
            "picture": {"litellm_provider": "x", "output_cost_per_image": 0.04, "mode": "image_generation"},
        },
    )
    assert seed.prices == []
    assert (seed.entries, seed.models) == (3, 0)
    assert seed.skipped == {
        "entry without a provider": 1,
        "price by number of results": 1,
        "not a price per token": 1,
    }


@pytest.fixture(scope="module")
def real() -> Seed:
    """The map of the installed distribution."""
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        pytest.skip(f"the price map of {DISTRIBUTION} is not installed: pip install --no-deps {DISTRIBUTION}")
    path, source = installed_map()
    assert source == f"{DISTRIBUTION} {installed.version}"
    return read_map(path, source, START)


def test_the_real_map_is_read_and_every_key_with_money_in_it_is_accounted_for(real: Seed) -> None:
    document = json.loads(Path(str(distribution(DISTRIBUTION).locate_file(FILE))).read_bytes())
    document.pop("sample_spec")
    assert real.entries == len(document) > 4000
    keys = Counter(
        key
        for entry in document.values()
        for part in (entry, *(each for each in entry.get("tiered_pricing", ()) if isinstance(each, dict)))
        for key in part
        if entry.get("litellm_provider") and re.search("cost|pricing|multiplier", key)
        if key != "tiered_pricing" and "uplift" not in key
    )
    nameless = real.skipped["entry without a provider"]
    everywhere = [row for row in real.prices if not row.region]
    found = len(everywhere) + len(real.refused) + sum(real.skipped.values()) - nameless
    same = keys.total() - found
    assert 0 <= same < 300, "two names of one price are one row; nothing else may be lost"
    assert real.models > 3500
    assert len(real.refused) < 100


def test_the_real_map_has_no_two_prices_of_the_same_thing(real: Seed) -> None:
    keys = Counter(row.key for row in real.prices)
    assert [key for key, count in keys.items() if count > 1] == []


def test_prices_of_the_real_map_are_those_that_providers_publish(real: Seed) -> None:
    def usd(model: str, meter: str, tokens: int = 0, tier: str | None = None, region: str = "") -> Decimal:
        sheet = resolve([row for row in real.prices if row.model == model], START, region)
        assert sheet is not None
        return Decimal(sheet.at(tokens, tier).rates[meter]) / 10**12  # type: ignore[index]

    assert (usd("gpt-4o", "input"), usd("gpt-4o", "output")) == (Decimal("2.5"), Decimal(10))
    assert usd("gpt-4o", "cache_read") == Decimal("1.25")
    assert usd("gpt-4o", "input", tier="batch") == Decimal("1.25")
    assert usd("claude-sonnet-4-5", "cache_write_5m") == Decimal("3.75")
    assert usd("claude-sonnet-4-5", "cache_write_1h") == Decimal(6)
    assert usd("gemini-2.5-pro", "output", 200_000) == Decimal(10)
    assert usd("gemini-2.5-pro", "output", 200_001) == Decimal(15)
    assert usd("claude-sonnet-4-6", "input", region="us") == Decimal("3.3")
    assert usd("claude-sonnet-4-6", "input", region="eu") == usd("claude-sonnet-4-6", "input") == Decimal(3)


def test_regional_uplifts_become_rows_of_their_region_with_their_source(tmp_path: Path) -> None:
    entry = {"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5, "input_cost_per_token_batches": 1.25e-6}
    seed = seed_of(
        tmp_path,
        {
            "gpt": {"litellm_provider": "openai", **entry, "regional_processing_uplift_multiplier_eu": 1.1},
            "claude": {"litellm_provider": "anthropic", **entry, "provider_specific_entry": {"us": 1.1, "fast": 6}},
            "gemini": {"litellm_provider": "vertex_ai", **entry, "regional_endpoint_uplift_multiplier": 1.1},
        },
    )
    regional = [row for row in seed.prices if row.region]
    assert {(row.model, row.region) for row in regional} == {("gpt", "eu"), ("claude", "us"), ("gemini", "regional")}
    assert {row.source for row in regional} == {"a map x1.1"}
    for name, region in (("gpt", "eu"), ("claude", "us"), ("gemini", "regional")):
        sheet = resolve([row for row in seed.prices if row.model == name], START, region)
        assert sheet is not None
        assert format_usd(sheet.at(0).rates["input"]) == "2.75"
        assert format_usd(sheet.at(0, "batch").rates["input"]) == "1.375"
        assert format_usd(sheet.at(0).rates["reasoning"]) == "11"


@pytest.mark.parametrize(
    ("factor", "reason"),
    [(0, "above 0"), (-1.1, "above 0"), (110, "10 % more is 1.1"), ("1.1", "is not a number"), (True, "is not a number"),
     (float("nan"), "above 0"), (float("inf"), "above 0")],
)  # fmt: skip
def test_an_uplift_that_is_no_factor_is_refused_by_name_and_the_prices_stay(
    tmp_path: Path, factor: Any, reason: str
) -> None:
    entry = {"litellm_provider": "openai", "input_cost_per_token": 1e-6}
    seed = seed_of(tmp_path, {"m": {**entry, "regional_processing_uplift_multiplier_us": factor}})
    assert [row.region for row in seed.prices] == [""]
    [refused] = seed.refused
    assert refused.startswith("m: regional_processing_uplift_multiplier_us: ")
    assert reason in refused
