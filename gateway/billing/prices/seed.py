"""Reads a price map in litellm's format into prices of the provider book (pure but for the file); its library is not imported.

One small grammar reads its keys: meter, cache lifetime, context tier, service tier. What it does not cover (per image, per
second, per query, time of day) is not dropped in silence: it is counted under its reason. Wrong values refuse one key, a
file that is no price map raises ConfigError.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from gateway.billing.prices.choose import Price
from gateway.billing.prices.uplift import in_region
from gateway.errors import ConfigError
from gateway.money import UNITS_PER_PRICE, implausible, parse_price
from gateway.types import Meter, ServiceTier

DISTRIBUTION = "litellm"
FILE = "litellm/model_prices_and_context_window_backup.json"
EXAMPLE = "sample_spec"
INCLUSIVE = frozenset({"xai"})
"""Providers whose context tier begins at its threshold; everybody else's begins one token above."""

_METERS: dict[str, Meter] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_audio_token": "audio_output",
    "cache_read_input_token_cost": "cache_read",
    "input_cost_per_token_cache_hit": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
}
_TIERS: dict[str | None, ServiceTier] = {None: "default", "batches": "batch", "flex": "flex", "priority": "priority"}
_KEY = re.compile(
    rf"(?P<meter>{'|'.join(sorted(_METERS, key=len, reverse=True))})"
    r"(?:_above_(?P<lifetime>\d+(?:hr|m)))?"
    r"(?:_above_(?P<thousands>\d+)k_tokens)?"
    r"(?:_(?P<tier>[a-z]+))?"
)
_MONEY = re.compile(r"cost|pricing|multiplier")
_UPLIFT = re.compile(r"regional_(?:processing|endpoint)_uplift_multiplier(?:_(?P<region>[a-z]+))?")
ANY_REGION = "regional"
"""The region of an uplift that holds at every regional endpoint of a provider (Vertex AI)."""
_SPECIFIC = "provider_specific_entry"
_GEOGRAPHIES = frozenset({"us", "eu"})
_FIFTEEN_DIGITS = Context(prec=15)
"""Prices per token have passed through binary floats: what lies beyond 15 significant digits is noise."""


@dataclass(slots=True)
class Seed:
    """The prices of a map, and how many of its keys were not imported, by reason."""

    source: str
    source_hash: str
    entries: int = 0
    models: int = 0
    prices: list[Price] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """Keys of ours whose value is wrong: model, key, and why."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one key prices."""

    meter: Meter
    thousands: int
    service_tier: ServiceTier


def installed_map() -> tuple[Path, str]:
    """The map inside the installed distribution and its name with version. Raises ConfigError when it is not installed."""
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise ConfigError(
            f"the price map comes with the distribution {DISTRIBUTION!r}, which is not installed. "
            f"Run `pip install --no-deps {DISTRIBUTION}` (only one file of it is read), or give a map with --file."
        ) from None
    return Path(str(found.locate_file(FILE))), f"{DISTRIBUTION} {found.version}"


def read_map(path: Path, source: str, valid_from: datetime) -> Seed:
    """Every price of a map file, valid from a moment on. Raises ConfigError when the file is not a price map."""
    try:
        text = path.read_bytes()
        document = json.loads(text, parse_float=Decimal, parse_constant=Decimal)
    except OSError as error:
        raise ConfigError(f"cannot read the price map {str(path)!r}: {error.strerror}.") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"the price map {str(path)!r} is not JSON: {error}.") from error
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise ConfigError(f"the price map {str(path)!r} must be an object with one object of prices per model.")
    seed = Seed(source, hashlib.sha256(text).hexdigest())
    for model, entry in document.items():
        if model != EXAMPLE:
            _read_entry(seed, model, entry, valid_from)
    return seed


def meaning(key: str) -> Meaning | str:
    """What a key of the map prices, or why it is not imported."""
    match = _KEY.fullmatch(key)
    if match is None:
        return "not a price per token of text, audio or image input" if _per_token(key) else "not a price per token"
    meter, lifetime, tier = _METERS[match["meter"]], match["lifetime"], match["tier"]
    if lifetime == "1hr" and meter == "cache_write_5m":
        meter = "cache_write_1h"
    elif lifetime is not None:
        return f"cache lifetime {lifetime}"
    if tier not in _TIERS:
        return f"service tier {tier}"
    return Meaning(meter, int(match["thousands"] or 0), _TIERS[tier])


def _read_entry(seed: Seed, model: str, entry: Mapping[str, Any], valid_from: datetime) -> None:
    seed.entries += 1
    provider = entry.get("litellm_provider")
    if not isinstance(provider, str) or not provider:
        seed.skipped["entry without a provider"] += 1
        return
    found: dict[tuple[Meter, int, ServiceTier], int] = {}
    for key, value, start in _prices_of(entry):
        what = meaning(key) if start is not None else "price by number of results"
        if isinstance(what, str):
            seed.skipped[what] += 1
            continue
        try:
            rate = _rate(what.meter, value)
        except ValueError as error:
            seed.refused.append(f"{model}: {key}: {error}")
            continue
        threshold = what.thousands * 1000 or start or 0
        least = threshold + (threshold > 0 and provider not in INCLUSIVE)
        found.setdefault((what.meter, least, what.service_tier), rate)
    seed.models += bool(found)
    prices = [
        Price(
            "provider", provider, model, meter, rate, valid_from,
            least_tokens=least, service_tier=tier, source=seed.source, source_hash=seed.source_hash,
        )
        for (meter, least, tier), rate in found.items()
    ]  # fmt: skip
    seed.prices += prices
    for key, region, factor in _uplifts(entry):
        try:
            seed.prices += in_region(prices, region, _factor(factor))
        except ValueError as error:
            seed.refused.append(f"{model}: {key}: {error}")


def _uplifts(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Key, region and factor of everything that makes a region dearer."""
    for key, value in entry.items():
        if match := _UPLIFT.fullmatch(key):
            yield key, match["region"] or ANY_REGION, value
    specific = entry.get(_SPECIFIC)
    for name, value in specific.items() if isinstance(specific, dict) else ():
        if name in _GEOGRAPHIES:  # Anthropic: inference that stays in a geography
            yield f"{_SPECIFIC}.{name}", name, value


def _factor(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"{value!r} is not a number")
    return _FIFTEEN_DIGITS.create_decimal(value)


def _prices_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any, int | None]]:
    """Every key with money in it, its value, and the tokens at which its range starts (None: no range of tokens).

    Keys of the entry come before those in its list of ranges, so that they count where both say the same. The older name of
    cache reads comes after the newer one.
    """
    for key in sorted(entry, key=lambda key: key.endswith("_cache_hit")):
        if key != "tiered_pricing" and _MONEY.search(key) and not _UPLIFT.fullmatch(key):
            yield key, entry[key], 0
    ranges = entry.get("tiered_pricing")
    for each in ranges if isinstance(ranges, list) else ():
        if not isinstance(each, dict):
            continue
        bounds = each.get("range")
        first = bounds[0] if isinstance(bounds, list) and bounds else None
        start = int(first) if isinstance(first, int | Decimal) and 0 <= first < 10**9 else None
        for key, value in each.items():
            if _MONEY.search(key):
                yield key, value, start


def _rate(meter: Meter, per_token: Any) -> int:
    """Pico-USD per million tokens of a price per token. Raises ValueError for what is no plausible, exact price."""
    if isinstance(per_token, bool) or not isinstance(per_token, int | Decimal | str):
        raise ValueError(f"{per_token!r} is not a number")
    try:
        value = _FIFTEEN_DIGITS.create_decimal(per_token) * UNITS_PER_PRICE
    except ArithmeticError:
        raise ValueError(f"{per_token!r} is not a number") from None
    rate = parse_price(value, "the price per million")
    if problem := implausible(meter, rate):
        raise ValueError(problem)
    return rate


def _per_token(key: str) -> bool:
    return "token" in key
