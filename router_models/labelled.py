"""Labels of one's own: how good answers of a tier were to prompts, from a file or a log; a line that says nothing is refused.

A file holds one JSON object per line: {"prompt" or "messages", "tier", "score" (0..1)}, and if known "model", "output_tokens".
Several answers to one prompt stand in several lines; they are brought together by "request", or without it by the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from router_models.batch import score_kept
from router_models.errors import TrainingDataError
from router_models.kept import fingerprint, unpack_many
from router_models.recalibrate import LabelledPrompts
from router_models.request import RequestText
from router_models.router import Router
from router_models.tiers import TIERS, Tier

Doubles = NDArray[np.float64]

# As the gateway guesses the size of a prompt whose tokens nobody counted.
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A logged request without its text: packed features with their fingerprint, whether it had images or no text, its size."""

    features: bytes
    fingerprint: str
    odd: bool
    input_tokens: float


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answer: what was asked, which tier and model answered, how good it was (0..1), how long it was if known.

    `request` names the request, so that answers to it are brought together; `source` is where it comes from, such as a policy.
    Of a logged request the text is often not kept (None), but its features are: `kept`.
    """

    prompt: str | None
    tier: Tier
    score: float
    model: str = ""
    output_tokens: float | None = None
    request: str = ""
    source: str = "own"
    kept: KeptRequest | None = None

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise TrainingDataError(f"{self.tier!r} is no tier of the router; use one of {', '.join(TIERS)}")
        if not 0.0 <= self.score <= 1.0:
            raise TrainingDataError(f"a score must lie between 0 and 1, got {self.score!r}")
        if self.output_tokens is not None and not 0.0 <= self.output_tokens <= 1e9:
            raise TrainingDataError(f"output_tokens must be a count, got {self.output_tokens!r}")


def read_labels(path: Path, tier: Tier | None = None) -> list[LabelledAnswer]:
    """All answers of a JSON lines file; `tier` is that of lines without one. Raises TrainingDataError that names the line."""
    try:
        # Not splitlines: JSON leaves characters unescaped that it takes for ends of lines.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"the labels {str(path)!r} cannot be read: {error}") from error
    return list(_answers(path, lines, tier))


def gather(router: Router, answers: Iterable[LabelledAnswer]) -> LabelledPrompts:
    """Every prompt once, scored by the router, with the mean label and length of each tier's answers to it.

    What has neither text nor features of this release's kind cannot be scored and is left out. Raises KeptFeaturesError.
    """
    found: dict[str, list[LabelledAnswer]] = {}
    for answer in answers:
        if answer.prompt is not None or (answer.kept is not None and answer.kept.fingerprint == fingerprint()):
            found.setdefault(answer.request or answer.prompt or "", []).append(answer)
    requests = list(found.values())
    labels, written = (np.full((len(requests), len(TIERS)), np.nan) for _ in range(2))
    for row, together in enumerate(requests):
        for column, tier in enumerate(TIERS):
            mine = [answer for answer in together if answer.tier == tier]
            lengths = [answer.output_tokens for answer in mine if answer.output_tokens is not None]
            if mine:
                labels[row, column] = float(np.mean([answer.score for answer in mine]))
            if lengths:
                written[row, column] = float(np.mean(lengths))
    return LabelledPrompts(*_scored(router, [together[0] for together in requests]), labels, written)


def _scored(router: Router, firsts: list[LabelledAnswer]) -> tuple[Doubles, Doubles, Doubles]:
    """Predicted qualities and tokens (N, T) and sizes (N,) of requests, by their texts or else their kept features."""
    quality, tokens = np.zeros((len(firsts), len(TIERS))), np.zeros((len(firsts), len(TIERS)))
    sizes = np.zeros(len(firsts))
    logged: list[tuple[int, KeptRequest]] = []
    for row, first in enumerate(firsts):
        if first.kept is not None:
            sizes[row] = first.kept.input_tokens
        if first.prompt is None:
            assert first.kept is not None, "requests without either were left out"
            logged.append((row, first.kept))
            continue
        score = router.score_prompt(first.prompt)
        quality[row] = [score.quality[tier].p for tier in TIERS]
        tokens[row] = [score.expected_output_tokens[tier] for tier in TIERS]
        sizes[row] = sizes[row] or len(first.prompt.encode("utf-8", "replace")) // BYTES_PER_TOKEN
    if logged:
        rows = [row for row, _ in logged]
        features = unpack_many([each.features for _, each in logged], fingerprint())
        scores = score_kept(router, features, np.array([each.odd for _, each in logged], dtype=bool))
        quality[rows], tokens[rows] = scores.quality, scores.tokens
    return quality, tokens, sizes


def _answers(path: Path, lines: list[str], tier: Tier | None) -> Iterator[LabelledAnswer]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _answer(json.loads(line), tier)
        except (ValueError, TrainingDataError) as error:
            raise TrainingDataError(f"line {number} of {str(path)!r}: {error}") from error


def _answer(body: Any, tier: Tier | None) -> LabelledAnswer:
    if not isinstance(body, dict):
        raise TrainingDataError(f"each line is one JSON object, got {body!r:.80}")
    messages = body.get("messages")
    if (messages is None) == ("prompt" not in body):
        raise TrainingDataError('give either "prompt" or "messages"')
    prompt = RequestText.from_messages(messages).text if isinstance(messages, list) else body.get("prompt")
    if not isinstance(prompt, str):
        raise TrainingDataError(f'"prompt" is a text and "messages" a list, got {body.get("prompt", messages)!r:.80}')
    score, tokens = body.get("score"), body.get("output_tokens")
    for name, value in (("score", score), ("output_tokens", 0 if tokens is None else tokens)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TrainingDataError(f"{name!r} must be a number, got {value!r}")
    return LabelledAnswer(
        prompt=prompt,
        tier=cast(Tier, body.get("tier", tier)),
        score=float(cast(float, score)),
        model=str(body.get("model") or ""),
        output_tokens=None if tokens is None else float(tokens),
        request=str(body.get("request") or ""),
    )
