"""Labels of one model's answers, by which a model that nobody recorded joins; too few or odd ones are refused, naming the line.

The file is that of `router_models.labelled`: one JSON object per line, {"prompt" or "messages", "score" (0..1)}, "tier" and all
else optional. Lines whose "model" is another one are left out, so that one file may hold the labels of several models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from router_models.abilities import Ability, learn_ability
from router_models.errors import TrainingDataError
from router_models.labelled import LabelledAnswer, read_labels
from router_models.router import Router
from router_models.tiers import Tier

# With fewer the other models weigh more than the labels, and the model's tier says as much.
LEAST_PROMPTS = 20
# Three numbers are learnt: more prompts say nothing new, and each is scored when the gateway starts.
MOST_PROMPTS = 5_000


@dataclass(frozen=True, slots=True)
class OwnLabels:
    """N distinct prompts and how good the model's answers to each were on average, 0..1."""

    prompts: tuple[str, ...]
    labels: tuple[float, ...]

    def ability(self, router: Router, model: str) -> Ability:
        """What they say of the model, as this router sees the prompts; a fifth of a millisecond for each of them."""
        return learn_ability(
            router.artifact, model, [router.score_prompt(prompt) for prompt in self.prompts], self.labels
        )


def read_own_labels(path: Path, model: str, tier: Tier) -> OwnLabels:
    """The labels of `model`, whose tier is `tier`. Raises TrainingDataError: unreadable, an odd line, too few or too many."""
    answers = read_labels(path, tier)
    labels = own_labels(answer for answer in answers if answer.model in ("", model))
    count = len(labels.prompts)
    if not count and answers:
        others = sorted({answer.model for answer in answers})
        raise TrainingDataError(
            f"none of the {len(answers)} labels in {str(path)!r} is of {model!r}; they are of {', '.join(others[:5])}"
        )
    if not LEAST_PROMPTS <= count <= MOST_PROMPTS:
        wanted = (
            f"{LEAST_PROMPTS} are the least"
            if count < LEAST_PROMPTS
            else f"{MOST_PROMPTS} are the most: take a random sample"
        )
        raise TrainingDataError(f"{str(path)!r} labels {count} different prompts for {model!r}; {wanted}")
    return labels


def own_labels(answers: Iterable[LabelledAnswer]) -> OwnLabels:
    """Every prompt once, with the mean of its labels; answers whose prompt was not kept are left out."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        if answer.prompt is not None:
            found.setdefault(answer.prompt, []).append(answer.score)
    return OwnLabels(tuple(found), tuple(sum(scores) / len(scores) for scores in found.values()))
