"""The energy that an engine of the operator's reports with its usage (pure). Whatever is not plainly a number is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.energy import MICRO, NANO, Energy

MOST = 2**50
"""Beyond this a report is nonsense: 1.1 gigajoules, or a ton of CO2. Thousands of reports add up within the database's 2^63."""


def read_energy(raw_usage: Mapping[str, Any] | None) -> Energy | None:
    """What `usage.energy` says: `joules`, `co2e_grams`, `estimated`. None when it says nothing usable.

    It counts as measured only when the report says that it is.
    """
    said = raw_usage.get("energy") if raw_usage is not None else None
    if not isinstance(said, dict):
        return None
    microjoules = _whole(said.get("joules"), MICRO)
    if microjoules is None:
        return None
    return Energy(microjoules, _whole(said.get("co2e_grams"), NANO), said.get("estimated") is not False)


def _whole(value: object, unit: int) -> int | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST / unit:
        return None  # NaN is not between, either
    return round(value * unit)
