"""Small builders: a catalog from a few words, so that a test shows only what it is about."""

from __future__ import annotations

from typing import Any

from gateway.catalog import Catalog, build_catalog
from gateway.config import check_config
from gateway.types import PriceSheet

PRICE = {"input": 1, "output": 2}


def model(name: str, tier: str = "economy", **changes: Any) -> dict[str, Any]:
    """One entry of `models`: scripted, 1 USD per million input and 2 USD per million output tokens."""
    entry: dict[str, Any] = {"name": name, "tier": tier, "price": PRICE, **changes}
    if "engine" not in entry:
        entry.setdefault("provider", "scripted")
    return entry


def catalog(*models: dict[str, Any], **sections: Any) -> Catalog:
    """A catalog of these models and sections."""
    return build_catalog(check_config({"models": list(models), **sections}, "test.yaml"), "test.yaml")


def sheets(built: Catalog) -> tuple[PriceSheet, ...]:
    """The price sheets of a catalog whose models all have their prices in the configuration."""
    return tuple(PriceSheet.flat(each.price) for each in built.models if each.price is not None)
