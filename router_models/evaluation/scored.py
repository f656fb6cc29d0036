"""Scores every prompt of the evaluation once and puts the recorded outcomes of each tier beside the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router_models.router import Router
from router_models.tiers import TIERS, Tier
from router_models.training.data import EVALUATION_ONLY, Tables

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Scored:
    """N prompts the artifact was not trained on; recorded values are NaN where no model of the tier answered.

    `probability`, `low`, `high`, `tokens` are predictions and `rate` (mean score of the tier's models), `used` (mean
    output tokens) recorded values, all by tier and of shape (N,). `seen_domain`: training had other prompts of it. `answers`
    are the outcomes of single models: place (0..N-1), model, tier, score.
    """

    domains: Names
    seen_domain: NDArray[np.bool_]
    unfamiliar: NDArray[np.bool_]
    characters: Doubles
    probability: dict[Tier, Doubles]
    low: dict[Tier, Doubles]
    high: dict[Tier, Doubles]
    tokens: dict[Tier, Doubles]
    rate: dict[Tier, Doubles]
    used: dict[Tier, Doubles]
    answers: pd.DataFrame

    def take(self, rows: NDArray[np.bool_]) -> Scored:
        """Only the prompts marked in `rows`, shape (N,)."""
        by_tier = (self.probability, self.low, self.high, self.tokens, self.rate, self.used)
        probability, low, high, tokens, rate, used = (
            {tier: values[rows] for tier, values in each.items()} for each in by_tier
        )
        places = np.cumsum(rows) - 1
        answers = self.answers[rows[self.answers["place"].to_numpy()]]
        return Scored(
            domains=self.domains[rows],
            seen_domain=self.seen_domain[rows],
            unfamiliar=self.unfamiliar[rows],
            characters=self.characters[rows],
            probability=probability,
            low=low,
            high=high,
            tokens=tokens,
            rate=rate,
            used=used,
            answers=answers.assign(place=places[answers["place"].to_numpy()]),
        )


def score_unseen(tables: Tables, router: Router) -> Scored:
    """Score the held-out prompts that repeat nothing, and those of the sets kept for evaluation (without mt_bench)."""
    every = tables.prompts
    wanted = every["held_out"] & every["graded"] & (every["dataset"] != "mt_bench")
    prompts = every[wanted & (every["dataset"].isin(EVALUATION_ONLY) | ~every["overlaps"])]
    scores = [router.score_prompt(prompt) for prompt in prompts["prompt"]]
    trained = set(every.loc[every["trainable"], "domain"])
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index)]
    return Scored(
        domains=prompts["domain"].to_numpy(dtype=str),
        seen_domain=prompts["domain"].isin(trained).to_numpy(),
        unfamiliar=np.array([score.out_of_distribution for score in scores]),
        characters=prompts["prompt"].str.len().to_numpy(dtype=np.float64),
        probability={tier: np.array([score.quality[tier].p for score in scores]) for tier in TIERS},
        low={tier: np.array([score.quality[tier].low for score in scores]) for tier in TIERS},
        high={tier: np.array([score.quality[tier].high for score in scores]) for tier in TIERS},
        tokens={tier: np.array([score.expected_output_tokens[tier] for score in scores]) for tier in TIERS},
        rate={tier: _mean(recorded, "score", tier, prompts.index) for tier in TIERS},
        used={tier: _mean(recorded, "out_tokens", tier, prompts.index) for tier in TIERS},
        answers=_answers(recorded, prompts.index),
    )


def _answers(recorded: pd.DataFrame, rows: pd.Index[int]) -> pd.DataFrame:
    place = pd.Series(np.arange(len(rows)), index=rows)
    known = recorded[recorded["score"].notna() & recorded["tier"].notna()]
    place = place.reindex(known["row"])
    return pd.DataFrame(
        {
            "place": place.to_numpy(dtype=np.int64),
            "model": known["model"].to_numpy(dtype=str),
            "tier": known["tier"].to_numpy(dtype=str),
            "score": known["score"].clip(0.0, 1.0).to_numpy(dtype=np.float64),
        }
    )


def domain_means(tables: Tables) -> dict[Tier, dict[str, float]]:
    """Mean recorded score by tier and domain over the prompts trained on; "" is the mean of them all."""
    prompts = tables.prompts[tables.prompts["trainable"]]
    recorded = tables.outcomes[tables.outcomes["row"].isin(prompts.index)]
    means: dict[Tier, dict[str, float]] = {}
    for tier in TIERS:
        rate = pd.Series(_mean(recorded, "score", tier, prompts.index), index=prompts.index)
        known = rate.groupby(prompts["domain"]).mean().dropna()
        means[tier] = {"": float(rate.mean()), **{str(name): float(value) for name, value in known.items()}}
    return means


def _mean(recorded: pd.DataFrame, column: str, tier: Tier, rows: pd.Index[int]) -> Doubles:
    means = recorded[recorded["tier"] == tier].groupby("row")[column].mean()
    result: Doubles = means.reindex(rows).to_numpy(dtype=np.float64)
    return result
