"""Nine models on fourteen tasks (llmrouter14): area of quality against cost of routers that choose among all of them.

Learnt on prompts that may be trained on, judged on held-out stems. A call costs what the model's size in billions of
parameters says (the recorded calls carry no tokens). A router maximises predicted quality - worth * cost; worth runs from
"quality alone" to "cheapest alone". The area is under the upper hull of (cost, quality), from the cheapest model's cost to
the dearest's, divided by that range: the mean quality over budgets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from router_models.evaluation.baselines import length
from router_models.local import OPINIONS, learn_local, local_points
from router_models.router import Router
from router_models.training.data import Tables

BILLIONS = {
    "codegemma-7b": 7.0,
    "mistral-7b-instruct-v0.3": 7.0,
    "qwen2.5-7b-instruct": 7.0,
    "llama-3.1-8b-instruct": 8.0,
    "llama3-chatqa-1.5-8b": 8.0,
    "gemma-2-9b-it": 9.0,
    "llama-3.3-nemotron-super-49b-v1": 49.0,
    "llama-3.1-nemotron-51b-instruct": 51.0,
    "llama3-chatqa-1.5-70b": 70.0,
}
WORTHS = (0.0, *np.geomspace(1e-5, 1.0, 60).tolist())
RESAMPLES = 500
# Penalties of recognising the task and of what single prompts add to its mean; by cross-validation on the learnt prompts.
TASK_PENALTY = 0.3
PENALTY = 30.0
NEIGHBOURS = 40

Doubles = NDArray[np.float64]
Names = NDArray[np.str_]


def nine_models_report(tables: Tables, router: Router, seed: int) -> dict[str, Any] | None:
    """Areas of every router with intervals over prompts, and of their difference to the dataset mean; None without the set."""
    prompts = tables.prompts[tables.prompts["dataset"] == "llmrouter14"]
    outcomes = tables.outcomes[tables.outcomes["row"].isin(prompts.index) & tables.outcomes["model"].isin(BILLIONS)]
    score = outcomes.pivot_table(index="row", columns="model", values="score", aggfunc="mean").reindex(prompts.index)
    complete = score.notna().all(axis=1).to_numpy() & (score.shape[1] == len(BILLIONS))
    learn = complete & prompts["trainable"].to_numpy()
    judge = complete & (prompts["held_out"] & prompts["graded"] & ~prompts["overlaps"]).to_numpy()
    if min(np.count_nonzero(learn), np.count_nonzero(judge)) < 100:
        return None
    models = [str(name) for name in score.columns]
    cost = np.array([BILLIONS[name] for name in models])
    known, truth = score[learn].to_numpy(dtype=np.float64), score[judge].to_numpy(dtype=np.float64)
    asked = prompts[judge]
    guesses = {
        **_learnt(router, prompts[learn], known, asked),
        "dataset_mean": _group_means(prompts.loc[learn, "category"], known, asked["category"]),
        "global_mean": np.tile(known.mean(axis=0), (len(asked), 1)),
        "tfidf_logistic_regression": _bag_of_words(prompts.loc[learn, "prompt"], known, asked["prompt"]),
        "oracle": truth,
    }
    # Length alone: the longest prompts take the better-for-the-global-mean models.
    rank = length(asked["prompt"].tolist()).argsort().argsort() / len(asked)
    guesses["length"] = known.mean(axis=0) * (0.5 + rank[:, None])
    rng = np.random.default_rng(seed)
    picks = [np.arange(len(asked)), *(rng.integers(0, len(asked), len(asked)) for _ in range(RESAMPLES))]
    choices = {name: _choices(guess, cost) for name, guess in guesses.items()}
    # Always one model, or a random mix of them: what needs no router.
    choices["random_mix"] = np.tile(np.arange(len(models))[:, None], (1, len(asked)))
    areas = {
        name: np.array([area(*_curve(choice[:, pick], truth[pick], cost), cost) for pick in picks])
        for name, choice in choices.items()
    }
    return {
        "prompts_learnt": int(np.count_nonzero(learn)),
        "prompts_judged": int(np.count_nonzero(judge)),
        "billions_of_parameters": dict(zip(models, cost.tolist(), strict=True)),
        "always_one_model": {
            name: round(float(value), 4) for name, value in zip(models, truth.mean(axis=0), strict=True)
        },
        "rows": {name: _row(values, values - areas["dataset_mean"]) for name, values in areas.items()},
        "curves": {
            name: [[round(float(x), 3), round(float(y), 4)] for x, y in zip(*_curve(choice, truth, cost), strict=True)]
            for name, choice in choices.items()
        },
    }


def _learnt(router: Router, learn: pd.DataFrame, scores: Doubles, asked: pd.DataFrame) -> dict[str, Doubles]:
    """ "local" recognises the task from the text; "local_named" is told its name, as "dataset_mean" is."""
    here, there = (local_points(router, part["prompt"].tolist()) for part in (learn, asked))
    mine = here[:, :-OPINIONS]
    near = there[:, :-OPINIONS] @ mine.T - 0.5 * np.sum(mine**2, axis=1)
    best = np.argpartition(-near, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    names = np.unique(learn["category"].to_numpy(dtype=str))
    member = (learn["category"].to_numpy(dtype=str)[:, None] == names).astype(np.float64)
    task = pd.Series(names[learn_local(here, member, TASK_PENALTY).predict(there).argmax(axis=1)])
    own = _group_means(learn["category"], scores, learn["category"])
    single = learn_local(here, scores - own, PENALTY).predict(there)
    return {
        "local": _group_means(learn["category"], scores, task) + single,
        "local_named": _group_means(learn["category"], scores, asked["category"]) + single,
        "knn": scores[best].mean(axis=1),
    }


def _bag_of_words(prompts: pd.Series[str], scores: Doubles, asked: pd.Series[str]) -> Doubles:
    """Probability of more than half of the score, by model: the textbook answer from words alone."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    columns, wanted = words.fit_transform(prompts), words.transform(asked)
    guesses = []
    for column in scores.T:
        good = column > 0.5
        if good.all() or not good.any():
            guesses.append(np.full(wanted.shape[0], column.mean()))
            continue
        model = LogisticRegression(C=1.0, max_iter=1000).fit(columns, good)
        guesses.append(model.predict_proba(wanted)[:, 1])
    return np.stack(guesses, axis=1)


def _group_means(known: pd.Series[str], scores: Doubles, asked: pd.Series[str]) -> Doubles:
    names = known.to_numpy(dtype=str)
    means = {name: scores[names == name].mean(axis=0) for name in np.unique(names)}
    return np.stack([means.get(name, scores.mean(axis=0)) for name in asked])


def _choices(guess: Doubles, cost: Doubles) -> NDArray[np.int64]:
    """The model chosen for every prompt at every worth, shape (W, N); ties go to the cheaper model."""
    order = np.argsort(cost, kind="stable")
    return np.stack([order[np.argmax((guess - worth * cost)[:, order], axis=1)] for worth in WORTHS])


def _curve(choice: NDArray[np.int64], truth: Doubles, cost: Doubles) -> tuple[Doubles, Doubles]:
    rows = np.arange(choice.shape[1])
    quality = np.array([truth[rows, each].mean() for each in choice])
    return np.array([cost[each].mean() for each in choice]), quality


def area(costs: Doubles, qualities: Doubles, cost: Doubles) -> float:
    """Mean over budgets of the best quality that costs no more, mixing neighbouring points at random (upper hull)."""
    budgets = np.linspace(cost.min(), cost.max(), 200)
    order = np.lexsort((-qualities, costs))
    hull: list[tuple[float, float]] = []
    for x, y in zip(costs[order], qualities[order], strict=True):
        if hull and y <= hull[-1][1]:
            continue
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) <= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((float(x), float(y)))
    xs, ys = np.array(hull).T
    return float(np.interp(budgets, xs, ys).mean())


def _row(values: Doubles, above: Doubles) -> dict[str, float]:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    above_low, above_high = np.quantile(above[1:], (0.025, 0.975))
    return {
        "area": round(float(values[0]), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "above_dataset_mean": round(float(above[0]), 4),
        "above_low": round(float(above_low), 4),
        "above_high": round(float(above_high), 4),
    }
