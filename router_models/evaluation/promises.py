"""Whether promised quality floors are kept: 200 deployments, each with its own labelled sample, judged on all other prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.choice import choose
from router_models.evaluation.routellm import PairedOutcomes
from router_models.evaluation.routing import USD_PER_MILLION
from router_models.evaluation.scored import Scored
from router_models.floor import CalibrationSample, TierPrice, expected_costs, promise_table
from router_models.local import learn_local, local_points
from router_models.router import Router
from router_models.threshold import promise_floor
from router_models.tiers import TIERS, Tier

DEPLOYMENTS = 200
# Labelled prompts of a deployment: to learn a local ranking from, and to test thresholds with.
LEARNT, TESTED = 500, 500
FLOORS = (0.9, 0.95)
# At most this many other prompts are the traffic of one deployment.
TRAFFIC = 3000
# Pico-USD; a token that is read costs a quarter of one that is written.
PRICES: dict[Tier, TierPrice] = {
    tier: TierPrice(1e6 * price / 4, 1e6 * price) for tier, price in USD_PER_MILLION.items()
}
WORTH_FLOORS = (0.8, 0.9, 0.95)
CHARACTERS_PER_TOKEN = 4

Doubles = NDArray[np.float64]


def promises_report(
    data: PairedOutcomes, rank: Doubles, router: Router, seed: int, deployments: int = DEPLOYMENTS
) -> dict[str, Any]:
    """Share of deployments that kept each floor at 95 % confidence, and the share of strong calls they needed.

    "artifact" ranks by the router alone, "local" learns the ranking from other labels of the same deployment.
    """
    points = local_points(router, data.prompts)
    gain = data.strong - data.weak
    count = len(data.prompts)
    learnt = min(LEARNT, count // 4)
    tested = min(TESTED, count // 4)
    found: dict[str, list[tuple[bool, float, bool]]] = {}
    for draw in range(deployments):
        order = np.random.default_rng([seed, draw]).permutation(count)
        mine, asked = order[:learnt], order[learnt : learnt + tested + TRAFFIC]
        check, rest = asked[:tested], asked[tested:]
        local = np.zeros(count)
        local[asked] = learn_local(points[mine], gain[mine, None]).predict(points[asked])[:, 0]
        for name, score in (("artifact", rank), ("local", local)):
            for floor in FLOORS:
                labels = score[check], data.weak[check], data.strong[check]
                promise = promise_floor(*labels, floor, traffic=rest.size)
                up = score[rest] >= promise.threshold
                quality = np.where(up, data.strong[rest], data.weak[rest]).mean()
                kept = bool(quality >= floor * data.strong[rest].mean())
                found.setdefault(f"{name}_{floor}", []).append((kept, float(up.mean()), promise.possible))
    return {
        "deployments": deployments,
        "labels_to_learn": learnt,
        "labels_to_test": tested,
        "rows": {
            name: {
                measure: round(float(value), 4)
                for measure, value in zip(("kept", "share_to_strong", "possible"), np.mean(rows, axis=0), strict=True)
            }
            for name, rows in found.items()
        },
    }


def worths_report(scored: Scored, router: Router, seed: int, deployments: int = DEPLOYMENTS) -> dict[str, Any]:
    """Promises by worth among three tiers: how many deployments keep them, and what they save. On prompts with all outcomes.

    A deployment labels one half of the prompts and is judged on the other one, whose own chance the promise allows for.
    "artifact" is the promise of the artifact's own sample on all of these prompts, as a gateway without labels makes it.
    """
    complete = np.all([~np.isnan(scored.rate[tier]) for tier in TIERS], axis=0)
    part = scored.take(complete)
    every = sample_of(part)
    count = len(every)
    if count < 4 * LEARNT // 5:
        return {"prompts": count, "note": "too few prompts with outcomes of all tiers"}
    found: dict[float, list[tuple[float, ...]]] = {floor: [] for floor in WORTH_FLOORS}
    for draw in range(deployments):
        order = np.random.default_rng([seed, draw]).permutation(count)
        labelled, asked = (_rows(every, half) for half in np.array_split(order, 2))
        table = promise_table(labelled, PRICES, WORTH_FLOORS, traffic=len(asked))
        for promise in table.promises:
            kept, saved = _kept(asked, promise.worth)
            found[promise.floor].append((kept >= promise.floor, saved, promise.possible))
    own = promise_table(router.artifact.sample, PRICES, WORTH_FLOORS)
    return {
        "prompts": count,
        "deployments": deployments,
        "usd_per_million_output_tokens": USD_PER_MILLION,
        "rows": {
            str(floor): {
                measure: round(float(value), 4)
                for measure, value in zip(("kept", "saved", "possible"), np.mean(rows, axis=0), strict=True)
            }
            for floor, rows in found.items()
        },
        "artifact": {
            str(promise.floor): promise.as_dict()
            | {
                "kept_here": round(_kept(every, promise.worth)[0], 4),
                "saved_here": round(_kept(every, promise.worth)[1], 4),
            }
            for promise in own.promises
        },
    }


def sample_of(part: Scored) -> CalibrationSample:
    """What promises are tested on, of prompts that were answered by all tiers."""
    return CalibrationSample(
        quality=np.stack([part.probability[tier] for tier in TIERS], axis=1),
        output_tokens=np.stack([part.tokens[tier] for tier in TIERS], axis=1),
        input_tokens=part.characters / CHARACTERS_PER_TOKEN,
        labels=np.stack([part.rate[tier] for tier in TIERS], axis=1),
    )


def _rows(sample: CalibrationSample, rows: NDArray[np.int64]) -> CalibrationSample:
    parts = (sample.quality, sample.output_tokens, sample.input_tokens, sample.labels)
    return CalibrationSample(*(part[rows] for part in parts))


def _kept(sample: CalibrationSample, worth: float) -> tuple[float, float]:
    """Share of the best tier's quality that a worth keeps, and share of its expected cost that it saves."""
    cost = expected_costs(sample, PRICES)
    choice, rows = choose(sample.quality, cost, worth, sample.size), np.arange(len(sample))
    kept = sample.labels[rows, choice].mean() / max(float(sample.labels[:, -1].mean()), 1e-9)
    return float(kept), float(1.0 - cost[rows, choice].sum() / cost[:, -1].sum())
