"""Prompts that an artifact has scored, with labels of answers that are good as often as a test says."""

from __future__ import annotations

import random
from collections.abc import Callable

from router_models import kept
from router_models.features import extract
from router_models.request import RequestText
from router_models.router import Router
from router_models.tiers import TIERS
from tests.routed_traffic import Request

START = 1_790_000_000.0
DAY = 86_400.0
TIER = ("economy", "standard", "premium")
TASKS = (
    "Add",
    "Explain",
    "Translate into French",
    "Prove",
    "Summarise",
    "Write a function for",
    "Name the capital of",
    "Integrate",
)
THINGS = (
    "seven and nine",
    "photosynthesis",
    "the sum of odd numbers",
    "a sorted list",
    "Peru",
    "x squared",
    "a letter to a bank",
)
Truth = Callable[[float], float]
"""What the chance of a good answer is where an artifact predicts another one."""


def labelled(
    router: Router, truth: Truth, count: int = 900, seed: int = 0, start: float = START - 10 * DAY
) -> list[Request]:
    """Requests that an artifact scored, with labels that are good as often as `truth` makes of its probability."""
    drawn, made = random.Random(seed), []
    for number in range(count):
        words = [drawn.choice(THINGS) for _ in range(drawn.randrange(1, 12))]
        prompt = f"{drawn.choice(TASKS)} {', then '.join(words)} ({drawn.randrange(1000)})"
        request = RequestText.from_prompt(prompt)
        features = extract(request, router.artifact.embedder)
        score = router.score(request)
        chances = tuple(score.quality[tier].p for tier in TIERS)
        place = drawn.randrange(3)
        made.append(
            Request(
                router.version,
                start + number,
                score=float(drawn.random() < truth(chances[place])),
                rank=score.rank,
                predicted=(chances[0], chances[1], chances[2]),
                unfamiliar=score.unfamiliar,
                tier=TIER[place],
                fingerprint=kept.fingerprint(),
                features=kept.pack(features),
            )
        )
    return made


def as_predicted(chance: float) -> float:
    return chance


def much_worse(chance: float) -> float:
    return 0.35 * chance


def never(chance: float) -> float:
    return 0.0
