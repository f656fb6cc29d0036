"""Whether an artifact that was trained again says what the one before it said: the same bytes, or scores within TOLERANCE.

The same tables, seed and libraries give the same bytes on one kind of processor. On another, numpy's libraries add in another
order; last bits differ, and with them a little what is fitted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import log
from pathlib import Path
from typing import Any

from router_models.errors import ArtifactError
from router_models.router import Router, Score
from router_models.tiers import TIERS
from router_models.training.everyday import everyday_prompts


@dataclass(frozen=True, slots=True)
class Distance:
    """The largest difference between two artifacts' scores of one prompt.

    `quality` is of probabilities and the ends of their intervals, `rank` is in logits, `tokens` of logarithms of lengths.
    """

    quality: float
    rank: float
    tokens: float

    def within(self, most: Distance) -> bool:
        """Whether no part is larger than that of `most`; one that is no number is not."""
        return all(getattr(self, part.name) <= getattr(most, part.name) for part in fields(Distance))


# With the instructions of a Haswell processor instead of a Skylake the bundled artifact moved by .004, .0002 and .00001.
TOLERANCE = Distance(quality=0.01, rank=0.02, tokens=0.02)


@dataclass(frozen=True, slots=True)
class Before:
    """What stood at a path before a training: its bytes and its router, None where there was none that this release loads."""

    content: bytes | None
    router: Router | None


def before(path: Path) -> Before:
    """Read what the training will replace."""
    if not path.is_file():
        return Before(None, None)
    try:
        return Before(path.read_bytes(), Router.load(path))
    except ArtifactError:
        return Before(path.read_bytes(), None)


def compared(was: Before, path: Path) -> dict[str, Any]:
    """JSON-ready: `same_as_before`; where it is false and there is something to compare with, also how far scores moved."""
    if path.read_bytes() == was.content:
        return {"same_as_before": True}
    report: dict[str, Any] = {"same_as_before": False}
    if was.router is not None:
        found = distance(was.router, Router.load(path))
        report["largest_difference"] = {name: round(value, 6) for name, value in asdict(found).items()}
        report["within_tolerance"] = found.within(TOLERANCE)
        report["tolerance"] = asdict(TOLERANCE)
    return report


def distance(one: Router, other: Router) -> Distance:
    """How far two routers are apart on the everyday prompts of this project (758, from a greeting to a proof)."""
    pairs = [(one.score_prompt(prompt), other.score_prompt(prompt)) for prompt in everyday_prompts()["prompt"]]
    return Distance(
        max(abs(a - b) for pair in pairs for a, b in zip(*map(_chances, pair), strict=True)),
        max(abs(a.rank - b.rank) for a, b in pairs),
        max(abs(a - b) for pair in pairs for a, b in zip(*map(_lengths, pair), strict=True)),
    )


def _chances(score: Score) -> list[float]:
    return [getattr(score.quality[tier], part) for tier in TIERS for part in ("p", "low", "high")]


def _lengths(score: Score) -> list[float]:
    return [log(tokens) for tokens in score.expected_output_tokens.values()]
