"""RouteLLM's protocol with a few labelled prompts of the benchmark: learn from them, rank all others, draw again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from router_models.evaluation.baselines import length, oracle
from router_models.evaluation.routellm import PairedOutcomes, apgr
from router_models.features import Floats
from router_models.local import OPINIONS, learn_local, local_points
from router_models.router import Router

LABELS = {"mmlu_test": 1500, "gsm8k_test": 400}
SEEDS = 10
NEIGHBOURS = 50
# Labelled prompts of the same subject that the mean over all subjects counts as.
SHRINKAGE = 10.0

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Ranker = Callable[[Rows, Rows], Doubles]


def few_labels_report(data: PairedOutcomes, router: Router, seed: int, labels: int | None = None) -> dict[str, Any]:
    """APGR of every method on the prompts that were not labelled: mean and standard deviation over SEEDS draws.

    `labels` is the number of labelled prompts (default: the set's in LABELS).
    """
    labels = LABELS[data.name] if labels is None else labels
    points = local_points(router, data.prompts)
    rankers: dict[str, Ranker] = {
        "local": lambda known, asked: local_rank(points, data, known, asked),
        "length": lambda known, asked: length(data.prompts)[asked],
        "knn": lambda known, asked: _nearest(points[:, :-OPINIONS], data, known, asked),
        "tfidf_logistic_regression": lambda known, asked: _bag_of_words(data, known, asked),
        "subject_mean": lambda known, asked: _subject(data, known, asked),
        "random": lambda known, asked: np.random.default_rng([seed, known[0]]).random(asked.size),
        "oracle": lambda known, asked: oracle(data, seed)[asked],
    }
    if len(set(data.subjects)) == 1:
        del rankers["subject_mean"]
    found: dict[str, list[float]] = {name: [] for name in rankers}
    for draw in range(SEEDS):
        order = np.random.default_rng([seed, draw]).permutation(len(data.prompts))
        known, asked = order[:labels], order[labels:]
        for name, rank in rankers.items():
            found[name].append(apgr(rank(known, asked), data.weak[asked], data.strong[asked]))
    return {
        "labels": labels,
        "draws": SEEDS,
        "rows": {
            name: {
                "apgr": round(float(np.mean(values)), 4),
                "sd": round(float(np.std(values, ddof=1)), 4),
                "lowest": round(min(values), 4),
                "highest": round(max(values), 4),
            }
            for name, values in found.items()
        },
    }


def local_rank(points: Floats, data: PairedOutcomes, known: Rows, asked: Rows) -> Doubles:
    """The gain that `local` predicts from the labelled prompts."""
    gain = (data.strong - data.weak)[known]
    return learn_local(points[known], gain[:, None]).predict(points[asked])[:, 0]


def _nearest(points: Floats, data: PairedOutcomes, known: Rows, asked: Rows) -> Doubles:
    gain = (data.strong - data.weak)[known]
    near = points[asked] @ points[known].T - 0.5 * np.sum(points[known] ** 2, axis=1)
    best = np.argpartition(-near, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    result: Doubles = gain[best].mean(axis=1)
    result += 1e-6 * near.max(axis=1)
    return result


def _bag_of_words(data: PairedOutcomes, known: Rows, asked: Rows) -> Doubles:
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    columns = words.fit_transform([data.prompts[row] for row in known])
    worth = (data.strong > data.weak)[known]
    model = LogisticRegression(C=1.0, max_iter=1000).fit(columns, worth)
    scores: Doubles = model.decision_function(words.transform([data.prompts[row] for row in asked]))
    return scores


def _subject(data: PairedOutcomes, known: Rows, asked: Rows) -> Doubles:
    """Mean gain of the labelled prompts of the same subject; a router does not know the subject's name."""
    gain = data.strong - data.weak
    mean = float(gain[known].mean())
    subjects = np.array(data.subjects)
    means = {
        name: (gain[known][subjects[known] == name].sum() + SHRINKAGE * mean)
        / (np.count_nonzero(subjects[known] == name) + SHRINKAGE)
        for name in np.unique(subjects)
    }
    noise = np.random.default_rng(0).random(asked.size)
    result: Doubles = np.array([means[name] for name in subjects[asked]]) + 1e-6 * noise
    return result
