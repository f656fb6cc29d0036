"""Everything that is measured of an artifact, as one JSON-ready document; the parts are in the other files of this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from router_models.evaluation.baselines import BagOfWords, NearestPrompts, length, oracle, subject_gain
from router_models.evaluation.calibration import quality_report, token_report
from router_models.evaluation.everyday import easy_prompts, everyday_report
from router_models.evaluation.few_labels import LABELS, few_labels_report
from router_models.evaluation.newcomers import newcomers_report
from router_models.evaluation.nine_models import nine_models_report
from router_models.evaluation.origin import origin
from router_models.evaluation.paired import load_pairs
from router_models.evaluation.promises import promises_report, worths_report
from router_models.evaluation.reasoning import thinking_report
from router_models.evaluation.routellm import Doubles, PairedOutcomes, apgr, curve, gap_recovered
from router_models.evaluation.routing import routing_report
from router_models.evaluation.scored import domain_means, score_unseen
from router_models.evaluation.sizes import sizes_report
from router_models.evaluation.speed import speed_report
from router_models.evaluation.wording import unfamiliarity_report, wording_report
from router_models.router import Router
from router_models.tiers import TIERS
from router_models.training.data import Tables, read_source, together, with_recorded

RANDOM_DRAWS = 20
Ranker = Callable[[Sequence[str]], Doubles]


def evaluate(
    folder: Path, router: Router, seed: int, tell: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """Everything that is measured, as one JSON-ready document; `tell` hears what is being done, in minutes of work."""
    tables = together(with_recorded(read_source(folder)))
    tell("scoring what the artifact was not trained on")
    parts = _parts(folder, tables, router, seed)
    report: dict[str, Any] = {**origin(), "artifact": router.version}
    for number, (name, measure) in enumerate(parts.items(), start=1):
        tell(f"{number} of {len(parts)}: {name.replace('_', ' ')}")
        report[name] = measure()
    return report


def _parts(folder: Path, tables: Tables, router: Router, seed: int) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name in the document, in order."""
    scored = score_unseen(tables, router)
    means = domain_means(tables)
    learnt: dict[str, Ranker] = {
        "tfidf_logistic_regression": BagOfWords(tables),
        "nearest_neighbours": NearestPrompts(tables, router),
    }
    seen, unseen = scored.take(scored.seen_domain), scored.take(~scored.seen_domain)
    sides = {"seen_domains": seen, "unseen_domains": unseen}
    pairs = {data.name: data for data in load_pairs(folder, tables)}
    labelled = {name: data for name, data in pairs.items() if name in LABELS}

    def promised() -> dict[str, Any]:
        ranks = {
            name: np.array([router.score_prompt(prompt).rank for prompt in data.prompts])
            for name, data in labelled.items()
        }
        return {name: promises_report(data, ranks[name], router, seed) for name, data in labelled.items()}

    return {
        "microseconds_per_score": lambda: speed_report(
            router, pairs["mmlu_test"].prompts if "mmlu_test" in pairs else ()
        ),
        "routellm": lambda: {name: _pair_report(data, router, learnt, seed) for name, data in pairs.items()},
        "few_labels": lambda: {name: few_labels_report(data, router, seed) for name, data in labelled.items()},
        "nine_models": lambda: nine_models_report(tables, router, seed),
        "promised_floor": promised,
        "promised_worth": lambda: worths_report(seen, router, seed),
        "worth_by_size": lambda: sizes_report(scored),
        "newcomers": lambda: newcomers_report(tables, router, seed),
        "everyday": lambda: everyday_report(tables, router, seed),
        "wording": lambda: {
            **wording_report(router, [data.prompts[i] for data in pairs.values() for i in range(0, 60, 2)]),
            "turned_unfamiliar": unfamiliarity_report(router, easy_prompts(tables)),
        },
        "quality": lambda: {
            name: {tier: quality_report(side, tier, means[tier]) for tier in TIERS} for name, side in sides.items()
        },
        "output_tokens": lambda: {
            name: {tier: token_report(side, tier) for tier in TIERS} for name, side in sides.items()
        },
        "thinking": lambda: thinking_report(tables, router, seed),
        "called_unfamiliar": lambda: {
            name: round(float(scored.unfamiliar[scored.domains == name].mean()), 4)
            for name in sorted(set(scored.domains.tolist()))
        },
        "routing": lambda: {
            "held_out_stems": routing_report(seen, seed),
            "unseen_domains": routing_report(unseen, seed),
        },
    }


def _pair_report(data: PairedOutcomes, router: Router, learnt: Mapping[str, Ranker], seed: int) -> dict[str, Any]:
    scores = [router.score_prompt(prompt) for prompt in data.prompts]
    methods = {
        "artifact": np.array([score.rank for score in scores]),
        "artifact_difficulty": np.array([score.difficulty for score in scores]),
        "length": length(data.prompts),
        **{name: rank(data.prompts) for name, rank in learnt.items()},
        "subject_gain_leave_one_out": subject_gain(data),
        "oracle": oracle(data, seed),
    }
    if len(set(data.subjects)) == 1:
        del methods["subject_gain_leave_one_out"]
    return {
        "prompts": len(data.prompts),
        "always_weak": round(float(data.weak.mean()), 4),
        "always_strong": round(float(data.strong.mean()), 4),
        "random": {"apgr": _random(data, seed)},
        # One number for the whole set cannot tell its prompts apart: chance ranks them.
        "dataset_mean": {"apgr": _random(data, seed + 1)},
        **{name: _rounded(asdict(gap_recovered(score, data, seed))) for name, score in methods.items()},
        "curves": {
            name: [
                [round(float(x), 4), round(float(y), 4)]
                for x, y in zip(*curve(score, data.weak, data.strong), strict=True)
            ]
            for name, score in methods.items()
        },
    }


def _random(data: PairedOutcomes, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return round(
        float(np.mean([apgr(rng.random(data.weak.size), data.weak, data.strong) for _ in range(RANDOM_DRAWS)])), 4
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}
