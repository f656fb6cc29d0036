"""Errors that a bill can have, one function each: it changes the rows and returns by how much the bill then differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date

from gateway.money import PICO_PER_USD
from tests.provider_bills import Row

Plant = Callable[[list[Row]], int]


def pick(rows: list[Row], meter: str, at_least: int = 100) -> Row:
    """A line in the first half of the month, of which there is another one on that day of its model."""
    return next(row for row in rows if row.meter == meter and row.quantity >= at_least and row.day > date(2026, 9, 2))


def plant_missing(rows: list[Row]) -> int:
    row = pick(rows, "output")
    rows.remove(row)
    return -row.amount


def plant_duplicate(rows: list[Row]) -> int:
    row = pick(rows, "input")
    rows.append(dataclasses.replace(row))
    return row.amount


def plant_price(rows: list[Row]) -> int:
    row = pick(rows, "cache_read")
    before = row.amount
    row.reprice(row.rate + PICO_PER_USD)
    return row.amount - before


def plant_tier(rows: list[Row]) -> int:
    row = pick(rows, "reasoning")
    before = row.amount
    row.tier = "priority"
    row.reprice(row.rate * 2)
    return row.amount - before


def plant_cache_split(rows: list[Row]) -> int:
    def inputs(cached: Row) -> list[Row]:
        return [row for row in rows if (row.day, row.model, row.meter) == (cached.day, cached.model, "input")]

    cached = [row for row in rows if row.meter == "cache_read" and row.quantity > 40 and len(inputs(row)) == 1][-1]
    [fresh] = inputs(cached)
    before = cached.amount + fresh.amount
    cached.quantity -= 40
    fresh.quantity += 40
    cached.reprice(cached.rate)
    fresh.reprice(fresh.rate)
    return cached.amount + fresh.amount - before


def plant_rounding(rows: list[Row]) -> int:
    row = pick(rows, "image_input", 1)
    row.amount += 3
    return 3


def plant_outside(rows: list[Row]) -> int:
    rows.append(Row(date(2026, 9, 9), "text-embedding-9", "input", 1000, PICO_PER_USD, 10**9, account="proj_x"))
    return 10**9


def plant_foreign_account(rows: list[Row]) -> int:
    twin = dataclasses.replace(pick(rows, "input"), account="proj_x")
    for row in rows:
        row.account = row.account or "proj_penstock"
    rows.append(twin)
    return twin.amount


def plant_timing(rows: list[Row]) -> int:
    row = pick(rows, "output")
    following = next(
        other for other in rows if (other.model, other.meter, other.rate) == (row.model, "output", row.rate)
        and (other.day - row.day).days == 1
    )  # fmt: skip
    before = row.amount + following.amount
    following.quantity += 50
    row.quantity -= 50
    for each in (row, following):
        each.reprice(each.rate)
    return row.amount + following.amount - before


def plant_credit(rows: list[Row]) -> int:
    rows.append(Row(date(2026, 9, 30), "", "other", 0, 0, -5 * PICO_PER_USD, description="credit grant"))
    return -5 * PICO_PER_USD


def plant_free_tier(rows: list[Row]) -> int:
    row = pick(rows, "audio_output", 1)
    before, row.amount, row.rate = row.amount, 0, 0
    return -before


PLANTED: dict[str, tuple[str, Plant]] = {
    "missing": ("missing", plant_missing),
    "duplicate": ("duplicate", plant_duplicate),
    "price": ("price", plant_price),
    "tier": ("tier", plant_tier),
    "cache split": ("cache_split", plant_cache_split),
    "rounding": ("rounding", plant_rounding),
    "outside by model": ("outside", plant_outside),
    "outside by account": ("outside", plant_foreign_account),
    "timing": ("timing", plant_timing),
    "credit": ("credit", plant_credit),
    "free tier": ("credit", plant_free_tier),
}
