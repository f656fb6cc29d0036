"""Scores that any router must beat: length, the subject's name, bag of words, like prompts, and what an oracle would do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from router_models.evaluation.routellm import PairedOutcomes
from router_models.features import Floats
from router_models.local import OPINIONS, local_points
from router_models.router import Router
from router_models.training.data import Tables

NEIGHBOURS = 50
# Prompts that are compared with all training prompts at once.
BATCH = 1000

Doubles = NDArray[np.float64]


def length(prompts: Sequence[str]) -> Doubles:
    """Number of characters."""
    return np.array([len(prompt) for prompt in prompts], dtype=np.float64)


def subject_gain(data: PairedOutcomes) -> Doubles:
    """Mean gain of strong over weak among the *other* prompts of the same subject (uses the test set's labels)."""
    gain = pd.Series(data.strong - data.weak)
    groups = gain.groupby(pd.Series(data.subjects))
    total, count = groups.transform("sum"), groups.transform("count")
    others: Doubles = ((total - gain) / (count - 1).clip(lower=1)).to_numpy(dtype=np.float64)
    return others


def oracle(data: PairedOutcomes, seed: int) -> Doubles:
    """The true gain, ties broken by chance."""
    noise = np.random.default_rng(seed).random(data.weak.size)
    result: Doubles = data.strong - data.weak + 1e-6 * noise
    return result


class BagOfWords:
    """TF-IDF with logistic regression on the artifact's own training prompts: the textbook answer to the same task.

    The label is whether most of the economy tier's models failed.
    """

    def __init__(self, tables: Tables) -> None:
        prompts, rate = _economy_rates(tables)
        known = rate.notna()
        self._words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        columns = self._words.fit_transform(prompts.loc[known, "prompt"])
        self._model = LogisticRegression(C=1.0, max_iter=1000).fit(columns, (rate[known] < 0.5).to_numpy())

    def __call__(self, prompts: Sequence[str]) -> Doubles:
        """Log odds that the economy tier fails."""
        scores: Doubles = self._model.decision_function(self._words.transform(prompts))
        return scores


class NearestPrompts:
    """How often the economy tier failed on the NEIGHBOURS most similar training prompts, by the artifact's own features."""

    def __init__(self, tables: Tables, router: Router) -> None:
        prompts, rate = _economy_rates(tables)
        known = rate.notna()
        self._router = router
        self._points = _places(router, prompts.loc[known, "prompt"].tolist())
        self._failed: Doubles = 1.0 - rate[known].to_numpy(dtype=np.float64)

    def __call__(self, prompts: Sequence[str]) -> Doubles:
        """Share of failures among the neighbours; ties are broken by how near these are."""
        asked = _places(self._router, prompts)
        lengths = 0.5 * np.sum(self._points**2, axis=1)
        count = min(NEIGHBOURS, len(self._points))
        found = []
        for begin in range(0, len(asked), BATCH):
            near = asked[begin : begin + BATCH] @ self._points.T - lengths
            best = np.argpartition(-near, count - 1, axis=1)[:, :count]
            found.append(self._failed[best].mean(axis=1) + 1e-6 * near.max(axis=1))
        return np.concatenate(found) if found else np.zeros(0)


def _economy_rates(tables: Tables) -> tuple[pd.DataFrame, pd.Series[float]]:
    """The prompts trained on, and the mean score of the economy tier's models on each, NaN where none was recorded."""
    prompts = tables.prompts[tables.prompts["trainable"]]
    economy = tables.outcomes[tables.outcomes["tier"] == "economy"]
    return prompts, economy.groupby("row")["score"].mean().reindex(prompts.index)


def _places(router: Router, prompts: Sequence[str]) -> Floats:
    points: Floats = local_points(router, prompts)[:, :-OPINIONS]
    return points
