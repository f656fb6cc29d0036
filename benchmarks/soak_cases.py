"""What the engine's soak asks for: requests of every kind from one seed, and what may come back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

Leave = Literal["never", "at once", "in the middle"]
WORDS = ("gate", "water", "turbine", "lake", "rain", "river", "dam", "valve", "pump", "tide", "wave", "mill", "stream")
STOPS = (("e",), ("th", "wa"), ("\n",), ("never written",), ("a", "e", "i", "o"))
SHARED = [" ".join(random.Random(number).choices(WORDS, k=60)) for number in range(6)]
"""Beginnings that many prompts have in common."""
REPEATED = 24
"""So many cases are asked again and again; their answers must never differ."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request: the fields of /v1/completions, when its caller leaves, and its number if it is a repeated one."""

    body: dict[str, Any]
    leave: Leave = "never"
    repeated: int | None = None


def cases(count: int, seed: int) -> list[Case]:
    """`count` requests: random lengths, aborts, stop strings, seeds, shared prefixes, salts, priorities and deadlines."""
    draw = random.Random(seed)
    fixed = [_repeated(number) for number in range(REPEATED)]
    return [draw.choice(fixed) if draw.random() < 0.15 else _case(draw) for _ in range(count)]


def _case(draw: random.Random) -> Case:
    own = " ".join(draw.choices(WORDS, k=draw.choice((1, 3, 10, 40))))
    shared = draw.random() < 0.5
    body: dict[str, Any] = {
        "prompt": f"{draw.choice(SHARED)} {own}" if shared else own,
        "max_tokens": draw.choice((1, 2, 8, 20, 60, 120)),
        "temperature": draw.choice((0, 0.7, 1.3)),
        "ignore_eos": draw.random() < 0.5,
    }
    if draw.random() < 0.3:
        body["stop"] = list(draw.choice(STOPS))
    if draw.random() < 0.3:
        body["seed"] = draw.randrange(1000)
    if draw.random() < 0.2:
        body["cache_salt"] = draw.choice(("one", "two"))
    if draw.random() < 0.2:
        body["priority"] = draw.randint(-3, 3)
    if draw.random() < 0.05:
        body["deadline_seconds"] = draw.choice((0.0, 0.02, 0.3))
    if draw.random() < 0.02:
        body["prompt"] = " ".join(draw.choices(WORDS, k=2000))  # longer than the context: refused
    leave: Leave = draw.choices(("never", "at once", "in the middle"), (80, 5, 15))[0]
    return Case(body, leave)


def _repeated(number: int) -> Case:
    draw = random.Random(-1 - number)
    body: dict[str, Any] = {
        "prompt": f"{SHARED[number % 3]} {WORDS[number % len(WORDS)]}",
        "max_tokens": 12,
        "temperature": number % 2,
        "seed": draw.randrange(1000),
        "ignore_eos": True,
    }
    return Case(body, repeated=number)


def slope(values: list[tuple[float, float]]) -> float:
    """Least squares: how much the second number grows per unit of the first."""
    count = len(values)
    if count < 2:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in values) / count, sum(y for _, y in values) / count
    above = sum((x - mean_x) * (y - mean_y) for x, y in values)
    below = sum((x - mean_x) ** 2 for x, _ in values)
    return above / below if below else 0.0


def resident_kib() -> int:
    """Memory of this process that is in RAM, KiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
