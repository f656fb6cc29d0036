"""Reports as the providers document them: every count lands in one bucket, the buckets sum to the totals, and have a price."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.cost import rate_usage
from gateway.conventions import CONVENTIONS, Convention, convention_at
from gateway.metering.normalise import Reading, read_usage
from gateway.metering.usage.tier import served_tier
from gateway.money import PICO_PER_USD
from gateway.types import METERS, PriceList
from tests.builders import catalog, model

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Golden:
    """One report, its provider's page, and what must come out."""

    provider: str
    convention: Convention
    base_url: str
    rates: dict[str, int]
    case: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.provider}: {self.case['name']}"


def _golden() -> list[Golden]:
    found = []
    for name in FILES:
        document = json.loads((FOLDER / f"{name}.json").read_text())
        given = {meter: int(Decimal(usd) * PICO_PER_USD) for meter, usd in document["usd_per_million"].items()}
        rates = {meter: given.get(meter, 0) for meter in METERS}
        found += [Golden(name, document["convention"], document["base_url"], rates, case) for case in document["cases"]]
    return found


GOLDEN = _golden()


def test_every_convention_and_self_hosted_servers_have_golden_reports() -> None:
    assert {golden.convention for golden in GOLDEN} == set(CONVENTIONS)
    assert {"vllm", "engine", "compatible"} <= set(FILES)
    for name in FILES:
        assert sum(golden.provider == name for golden in GOLDEN) >= 3, name


def _configured(golden: Golden) -> Reading:
    """Read as a gateway reads it whose configuration names nothing but the address."""
    entry = model("m", provider="openai", base_url=golden.base_url)
    return read_usage(golden.case["raw"], catalog(entry).models[0].usage)


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_a_documented_report_becomes_exactly_these_buckets(golden: Golden) -> None:
    case = golden.case
    for reading in (read_usage(case["raw"], golden.convention), _configured(golden)):
        usage = reading.usage
        assert dict(usage.quantities()) == case["buckets"]
        assert (usage.input_total, usage.output_total) == (case["input_total"], case["output_total"])
        assert usage.estimated == bool(reading.problems) == case["estimated"], reading.problems
    assert served_tier(case.get("reply_service_tier"), case["raw"]) == case["service_tier"]


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_every_bucket_of_it_is_rated_by_itself(golden: Golden) -> None:
    rated = rate_usage(read_usage(golden.case["raw"], golden.convention).usage, PriceList(golden.rates, "golden"))  # type: ignore[arg-type]
    lines = {line.meter: Decimal(line.amount) / PICO_PER_USD for line in rated.lines}
    assert lines == {meter: Decimal(usd) for meter, usd in golden.case["lines_usd"].items()}
    assert Decimal(rated.total) / PICO_PER_USD == Decimal(golden.case["total_usd"])


@pytest.mark.parametrize(
    ("address", "convention"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.x.ai/v1", "xai"),
        (
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/endpoints/openapi",
            "gemini",
        ),
        ("https://api.x.ai.example.com/v1", None),
        ("https://notapi.openai.com/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        (None, None),
    ],
)
def test_the_address_names_the_convention_only_where_it_is_certain(address: str | None, convention: str | None) -> None:
    assert convention_at(address) == convention


def test_the_configuration_names_a_convention_for_a_proxy_whose_address_says_nothing() -> None:
    report = {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553}
    entry = model("m", provider="openai", base_url="http://127.0.0.1:1/v1")
    named = catalog({**entry, "usage": "gemini"}).models[0]
    assert read_usage(report, named.usage).usage.reasoning == 382
    unnamed = read_usage(report, catalog(entry).models[0].usage)
    assert unnamed.usage.reasoning == 0
    assert unnamed.problems == ("total_tokens is 553, and its parts are 20 and 151",)


@pytest.mark.parametrize("golden", [each for each in GOLDEN if each.convention == "bedrock"], ids=str)
@pytest.mark.parametrize("configured", [None, *CONVENTIONS])
def test_a_report_in_other_words_than_the_configured_ones_is_read_by_its_own(
    golden: Golden, configured: Convention | None
) -> None:
    """One address may stand before several providers, and is configured with one convention."""
    reading = read_usage(golden.case["raw"], configured)
    assert reading.convention == "bedrock"
    assert dict(reading.usage.quantities()) == golden.case["buckets"]


def test_a_report_read_by_the_wrong_convention_is_marked_instead_of_billed_in_silence() -> None:
    anthropic = {
        "input_tokens": 21,
        "cache_read_input_tokens": 18000,
        "cache_creation_input_tokens": 0,
        "output_tokens": 3,
    }
    reading = read_usage(anthropic, "openai")
    assert reading.usage.estimated
    assert reading.problems == ("18000 tokens of cached input do not fit into the 21 that are left of their total",)
