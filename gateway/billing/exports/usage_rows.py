"""Usage as rows, one per request, for CSV and Parquet. The tenant view leaves out what the providers ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from gateway.billing.exports.columns import Cell, Column, Row, decimal
from gateway.billing.exports.focus import View
from gateway.types import usage_fields

USD_SCALE = 17
PICO_PLACES = 12
JOULE_PLACES, GRAM_PLACES = 6, 9
TEXTS = ("tenant", "project", "key_id", "key_name", "end_user", "session_id")


def usage_columns(view: View) -> tuple[Column, ...]:
    """The columns of one request."""
    counts = [Column(name, "integer") for name in usage_fields() if name != "gpu_seconds"]
    costs = [Column("cost_usd", "decimal", USD_SCALE)] if view == "provider" else []
    return (
        Column("request_id"),
        Column("started_at", "moment"),
        Column("finished_at", "moment"),
        *(Column(name) for name in TEXTS),
        Column("tags"),
        *(Column(name) for name in ("requested_model", "model", "provider", "tier", "outcome", "error_code")),
        Column("streamed", "boolean"),
        Column("disconnected", "boolean"),
        Column("estimated", "boolean"),
        Column("correction", "boolean"),
        Column("attempt_count", "integer"),
        *counts,
        Column("gpu_seconds", "decimal", 6),
        Column("energy_joules", "decimal", JOULE_PLACES),
        Column("co2e_grams", "decimal", GRAM_PLACES),
        Column("energy_estimated", "boolean"),
        *costs,
        Column("charge_usd", "decimal", USD_SCALE),
    )


def usage_rows(requests: Iterable[Mapping[Any, Any]], late: bool, view: View) -> Iterator[Row]:
    """Rows in the columns of the view. `late`: the requests belong to an earlier month that is closed."""
    plain = [column.name for column in usage_columns(view)]
    made = {"tags", "correction", "gpu_seconds", "energy_joules", "co2e_grams", "cost_usd", "charge_usd"}
    for request in requests:
        values: dict[str, Cell] = {
            "tags": orjson.dumps(request["tags"]).decode(),
            "correction": late,
            "gpu_seconds": decimal(request["gpu_seconds"], 6),
            "energy_joules": _known(request["energy_microjoules"], JOULE_PLACES),
            "co2e_grams": _known(request["co2e_nanograms"], GRAM_PLACES),
            "cost_usd": decimal(request["cost_pico"], PICO_PLACES),
            "charge_usd": decimal(request["charge_pico"], PICO_PLACES),
        }
        yield tuple(values[name] if name in made else request[name] for name in plain)


def _known(units: int | None, places: int) -> Cell:
    return decimal(units, places) if units is not None else None
