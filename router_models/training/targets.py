"""What is learnt about every prompt, read from the recorded outcomes; too few of what every artifact needs are refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.errors import TrainingDataError
from router_models.tiers import TIERS, Tier
from router_models.training.calibrate import Answers
from router_models.training.fit import WANTED_IN_DOMAIN, Names
from router_models.training.item_response import Scale, fit_scale
from router_models.training.lengths import Lengths, read_lengths
from router_models.training.ratings import as_outcomes, usable_ratings, with_ratings
from router_models.training.thinking import Thinking, read_thinking

WANTED_PROMPTS = 50
WANTED_DOMAINS = 2
# Column of Targets.heads that holds what thinking gains; written reasoning follows.
PREDICTED_THINKING = 2 + len(TIERS)

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Targets:
    """What is learnt about the N prompts of the corpus; NaN where nothing was recorded.

    `ease` (N,): minus the difficulty of the item-response scale. `recorded[tier]` (N,): mean score of the tier's models;
    `rate[tier]` (N,): the same, or what was rated where nobody answered. `ratings`: how many were used.
    `log_tokens[tier]` (N,): mean of log output tokens of the tier's models.
    """

    ease: Doubles
    recorded: dict[Tier, Doubles]
    rate: dict[Tier, Doubles]
    ratings: int
    log_tokens: dict[Tier, Doubles]
    lengths: Lengths
    thinking: Thinking
    scale: Scale

    @property
    def needed(self) -> list[Doubles]:
        """What no artifact can do without: ease, then log tokens by tier."""
        return [self.ease, *(self.log_tokens[tier] for tier in TIERS)]

    @property
    def others(self) -> list[Doubles]:
        """What may be missing: log tokens whatever the tier, what thinking gains, log tokens of written reasoning."""
        return [self.lengths.prompt, self.thinking.gain, self.thinking.log_written]

    @property
    def heads(self) -> list[Doubles]:
        """Everything that has to be predicted for prompts that a head has not seen."""
        return [*self.needed, *self.others]


def read_targets(prompts: pd.DataFrame, recorded: pd.DataFrame, ratings: pd.DataFrame) -> Targets:
    """Targets for the prompts (their index and `domain` are used) from their recorded outcomes and their ratings."""
    rows = prompts.index
    scored = recorded[recorded["score"].notna()]
    scored = scored.assign(score=scored["score"].clip(0.0, 1.0))
    rate = {tier: _mean(scored, "score", tier, rows) for tier in TIERS}
    ratings = usable_ratings(ratings, rate, rows)
    scale = fit_scale(pd.concat((scored, as_outcomes(ratings))) if len(ratings) else scored, prompts["domain"])
    models = set(scored["model"])
    scale = Scale(scale.difficulty, {model: able for model, able in scale.ability.items() if model in models})
    ease = -pd.Series(scale.difficulty, dtype="float64").reindex(rows).to_numpy()
    written = recorded[recorded["out_tokens"].notna()]
    written = written.assign(log_tokens=np.log(written["out_tokens"].clip(lower=1.0)))
    log_tokens = {tier: _mean(written, "log_tokens", tier, rows) for tier in TIERS}
    return Targets(
        ease,
        rate,
        with_ratings(rate, ratings, rows),
        len(ratings),
        log_tokens,
        read_lengths(rows, recorded),
        read_thinking(rows, scored_and(recorded)),
        scale,
    )


def scored_and(recorded: pd.DataFrame) -> pd.DataFrame:
    """The same outcomes with scores cut to 0..1; missing ones stay missing."""
    return recorded.assign(score=recorded["score"].clip(0.0, 1.0))


def read_answers(rows: pd.Index[int], recorded: pd.DataFrame, domains: Names, usable: NDArray[np.bool_]) -> Answers:
    """Scores of single models by tier and domain, at the places of the `usable` (N,) prompts in `rows`."""
    place = pd.Series(np.arange(len(rows)), index=rows)
    table = scored_and(recorded[recorded["score"].notna() & recorded["tier"].notna()])
    table = table.assign(place=place.reindex(table["row"]).to_numpy(dtype=np.int64))
    table = table[usable[table["place"].to_numpy()]]
    table = table.assign(domain=domains[table["place"].to_numpy()])
    return [
        [
            (part["place"].to_numpy(dtype=np.int64), part["score"].to_numpy(dtype=np.float64))
            for _, part in table[table["tier"] == tier].groupby(["model", "domain"])
        ]
        for tier in TIERS
    ]


def refuse_too_little(prompts: pd.DataFrame, recorded: pd.DataFrame) -> None:
    """Raise one TrainingDataError with everything that an artifact needs and these trainable prompts and outcomes lack."""
    lacks = []
    answered = recorded[recorded["score"].notna() & recorded["tier"].notna()]
    prompts = prompts[prompts.index.isin(answered["row"])]
    if len(prompts) < WANTED_PROMPTS:
        lacks.append(
            f"there are {len(prompts)} prompts to train on with a scored answer of a tier, {WANTED_PROMPTS} are needed"
        )
    sizes = prompts["domain"].value_counts()
    large = sorted(str(name) for name, size in sizes.items() if size >= WANTED_IN_DOMAIN)
    if len(large) < WANTED_DOMAINS:
        named = f" ({', '.join(map(repr, large))})" if large else ""
        lacks.append(
            f"{len(large)} domains{named} have {WANTED_IN_DOMAIN} prompts or more, {WANTED_DOMAINS} are needed (every data "
            "set is one, and of a log every policy)"
        )
    useful = recorded[recorded["score"].notna() & recorded["out_tokens"].notna()]
    for tier in TIERS:
        count = useful.loc[useful["tier"] == tier, "row"].nunique()
        if count < WANTED_PROMPTS:
            lacks.append(f"{count} prompts have a scored {tier} answer of known length, {WANTED_PROMPTS} are needed")
    if lacks:
        raise TrainingDataError(
            f"too few outcomes to train an artifact: {'; '.join(lacks)}. Three in ten prompts are set aside for tests and do "
            "not count, nor do those without text. Add outcomes of other sources (--data, --labels), or let `penstock router "
            "calibrate` fit the bundled artifact to what there is: it needs 50 labelled prompts"
        )


def checked(target: Doubles) -> Doubles:
    """The target itself. Raises TrainingDataError when it is known for too few prompts."""
    count = int(np.count_nonzero(~np.isnan(target)))
    if count < WANTED_PROMPTS:
        raise TrainingDataError(f"{count} prompts with outcomes of a tier are too few; need {WANTED_PROMPTS}")
    return target


def _mean(table: pd.DataFrame, column: str, tier: Tier, rows: pd.Index[int]) -> Doubles:
    means = table[table["tier"] == tier].groupby("row")[column].mean()
    result: Doubles = means.reindex(rows).to_numpy(dtype=np.float64)
    return result
