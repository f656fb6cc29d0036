"""Past requests and what replaying them gave, as columns (pure): a hundred thousand rows are too many to be objects."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Past:
    """N requests in the order of their start, with what was remembered of them (see gateway.routed) and what came of them.

    `needs` and `shown` are JSON. `chosen` was asked first, `answered` answered, if any did. `cost` and `charge` are booked
    pico-USD, `written` output tokens, `seconds` how long the whole request took. `quality`, `low`, `high` and `tokens` (N, 3)
    follow the tiers; `reasoning` (N,) is expected reasoning tokens, 0 for requests before these were remembered.
    """

    ids: list[str]
    tenant: list[str]
    policy: list[str]
    mode: list[str | None]
    min_quality: list[float | None]
    artifact: list[str]
    fingerprint: list[str | None]
    familiarity: list[float]
    unfamiliar: list[str]
    input_tokens: list[int]
    output_limit: list[int]
    chosen: list[str]
    needs: list[str]
    features: list[bytes | None]
    shown: list[str | None]
    requested: list[str]
    answered: list[str | None]
    cost: Integers
    charge: Integers
    written: Integers
    attempts: Integers
    seconds: Doubles
    quality: Doubles
    low: Doubles
    high: Doubles
    tokens: Doubles
    reasoning: Doubles

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Integers) -> Past:
        """Some of the requests, in the order of their places."""
        wanted = places.tolist()
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, column in columns.items():
            columns[name] = column[places] if isinstance(column, np.ndarray) else [column[place] for place in wanted]
        return Past(**columns)


@dataclass(frozen=True, slots=True)
class Scores:
    """What an artifact makes of past requests; columns follow the tiers.

    `shown` (N, R) is what single models are judged by, and `familiarity` (N,) how surely.
    """

    artifact: list[str]
    quality: Doubles
    low: Doubles
    high: Doubles
    tokens: Doubles
    unfamiliar: list[str]
    reasoning: Doubles
    familiarity: list[float]
    shown: Doubles | None = None

    @classmethod
    def recorded(cls, past: Past) -> Scores:
        """Those that the requests were routed by."""
        return cls(
            past.artifact, past.quality, past.low, past.high, past.tokens, past.unfamiliar, past.reasoning,
            past.familiarity,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """What is predicted of N requests if each is answered by the model named: as they were routed, or as replay routes them.

    `model` has None where nobody may answer. `quality` with its bounds `low` and `high`, pico-USD and seconds; NaN where
    nothing is known.
    """

    model: list[str | None]
    quality: Doubles
    low: Doubles
    high: Doubles
    cost: Doubles
    seconds: Doubles
