"""Whether promised quality floors are kept: 200 deployments, each with its own labelled sample, judged on all other prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_models.evaluation.routellm import PairedOutcomes
from router_models.local import learn_local, local_points
from router_models.router import Router
from router_models.threshold import promise_floor

DEPLOYMENTS = 200
# Labelled prompts of a deployment: to learn a local ranking from, and to test thresholds with.
LEARNT, TESTED = 500, 500
FLOORS = (0.9, 0.95)
# At most this many other prompts are the traffic of one deployment.
TRAFFIC = 3000

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
