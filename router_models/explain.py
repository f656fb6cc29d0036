"""Says in plain words why a prompt is harder or easier than the training prompts on average: what is special about it.

A prompt differs from a landmark (a prompt of the training data) in its topic and in what NAMES counts of its text. Turning
every landmark into the prompt part by part, each in another order, and noting what each step does to ease, shares the whole
difference out among the parts (Shapley values by drawn orders, Castro et al. 2009): they add up to it exactly, and what the
prompt has in common with all others says nothing. It takes up to a tenth of a second and is no part of scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import expm1
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from router_models.artifact import Artifact, Weights
from router_models.features import CORE, MARKS, NAMES, Features
from router_models.place import Placed, point_of, standardised

MOST_WORDS = 60
NEAREST = 8
"""Landmarks by whose domains a topic is described."""
UNUSUAL = 0.75
"""Standard deviations from the training prompts' mean that are worth a word."""
TOPIC = "topic"
PARTS: dict[str, tuple[str, ...]] = {
    "length": ("log_question_characters", "log_characters", "log_words", "log_lines", "log_sentences"),
    "numbers": ("log_question_numbers", "share_digits", "log_digits", "share_decimals"),
    "formulas": ("share_maths", "log_maths", "share_latex", "log_latex"),
    "code and brackets": ("share_code",),
    "rare words": ("rarity", "rarity_spread", "share_pieces"),
    "long words": ("mean_word_length", "share_long_words"),
    "varied words": ("share_distinct_words",),
    "other scripts": ("share_other_scripts",),
    "names and capitals": ("share_names", "share_capitals"),
    "punctuation": ("share_punctuation", "share_quotes", "share_commas"),
    "answer options": ("log_options", "log_option_characters", "question_before_options"),
    "what is asked": ("log_questions", "question_at_end", "trails_off", *MARKS),
}
"""Every shape feature is in one part; the first of a part says whether the prompt has more or less of it than usual."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one part, or the meaning of one word, does to ease, in logits: above 0 the prompt is easier for it than the average.

    `detail` says what it is in this prompt.
    """

    feature: str
    push: float
    detail: str = ""

    @property
    def direction(self) -> Literal["easier", "harder"]:
        """The push in a word."""
        return "easier" if self.push >= 0.0 else "harder"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`parts`, the largest push first, add up to `ease` - `usual`, which is the mean ease of the landmarks. All are logits.

    `words` are what ease would lose if a word's meaning were left out: a closer look at the topic, no further parts.
    """

    ease: float
    usual: float
    parts: tuple[Contribution, ...]
    words: tuple[Contribution, ...]


def explanation(
    artifact: Artifact, features: Features, placed: Placed, again: Callable[[Features], Placed]
) -> Explanation:
    """Why these features have the ease they have; `again` places changed features."""
    weights = artifact.weights
    marks = weights.landmarks
    names, place_of = [*PARTS, TOPIC], {name: place for place, name in enumerate(NAMES)}
    part_of = np.full(marks.shape[1], len(PARTS))
    for number, members in enumerate(PARTS.values()):
        part_of[[place_of[name] for name in members]] = number
    standard = standardised(features.shape, weights.centre, weights.scale)
    point = point_of(standard, features.meaning, weights.middle, weights.pull)
    # When each part of a landmark becomes the prompt's, drawn the same way for every prompt.
    rng = np.random.default_rng(0)
    turn = rng.permuted(np.tile(np.arange(len(names)), (len(marks), 1)), axis=1)
    before = _ease(weights, marks)
    usual, pushes = float(before.mean()), np.zeros(len(names))
    for step in range(len(names)):
        after = _ease(weights, np.where(turn[:, part_of] <= step, point, marks))
        np.add.at(pushes, np.argmax(turn == step, axis=1), (after - before) / len(marks))
        before = after
    details = {name: _compared(float(standard[place_of[members[0]]])) for name, members in PARTS.items()}
    details |= _details(artifact, features, placed)
    parts = [Contribution(name, push, details[name]) for name, push in zip(names, pushes.tolist(), strict=True)]
    return Explanation(float(before.mean()), usual, _sorted(parts), _sorted(_words(artifact, features, placed, again)))


def _ease(weights: Weights, points: NDArray[np.float32]) -> Doubles:
    """Ease (P,) of prompts at these points (P, N + D)."""
    marks, pull = weights.landmarks, weights.pull[:CORE]
    squares = [np.einsum("ij,ij->i", each, each) for each in (points, marks)]
    near = np.exp(-np.maximum(squares[0][:, None] + squares[1] - 2.0 * points @ marks.T, 0.0))
    core = points[:, :CORE] / np.where(pull != 0.0, pull, 1.0)
    parts = (near.astype(np.float64) @ weights.kernel[:, 0], core.astype(np.float64) @ weights.core[:, 0])
    result: Doubles = parts[0] + parts[1] + float(weights.bias[0])
    return result


def _details(artifact: Artifact, features: Features, placed: Placed) -> dict[str, str]:
    """What some parts are in this prompt, where more can be said than that there is more or less of it."""
    counted = dict(zip(NAMES, features.shape.tolist(), strict=True))
    nearest = np.argsort(-placed.near, kind="stable")[:NEAREST]
    shares: dict[str, float] = {}
    for home, near in zip(artifact.weights.home[nearest].tolist(), placed.near[nearest].tolist(), strict=True):
        shares[artifact.domains[home]] = shares.get(artifact.domains[home], 0.0) + near
    domains = sorted(shares, key=lambda name: -shares[name])[:2]
    asked = [name.replace("_", " ") for name in MARKS if counted[name]]
    options = round(expm1(counted["log_options"]))
    characters, numbers = (round(expm1(counted[f"log_question_{name}"])) for name in ("characters", "numbers"))
    return {
        TOPIC: f"most like {' and '.join(domains)}" if features.named else "no words",
        "length": f"a question of {characters} bytes",
        "numbers": f"{numbers or 'none'} in the question",
        "answer options": str(options or "none"),
        "what is asked": ", ".join(asked) or "no word that marks it",
    }


def _compared(standard: float) -> str:
    if abs(standard) < UNUSUAL:
        return "about as usual"
    return "more than usual" if standard > 0.0 else "less than usual"


def _words(
    artifact: Artifact, features: Features, placed: Placed, again: Callable[[Features], Placed]
) -> list[Contribution]:
    table = artifact.embedder
    found = []
    for word in features.words[:MOST_WORDS]:
        others = [other for other in features.words if other != word]
        without = again(replace(features, meaning=table.meaning(" ".join(others), table.distinct(others))))
        found.append(Contribution(word, placed.heads[0] - without.heads[0]))
    return found


def _sorted(found: list[Contribution]) -> tuple[Contribution, ...]:
    return tuple(sorted(found, key=lambda each: -abs(each.push)))
