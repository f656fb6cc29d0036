"""python -m router_models.evaluation --data DIR [--json FILE]: measure an artifact on prompts it was not trained on.

Prints (or writes) one JSON document: RouteLLM's protocol, calibration, routing by tier, time per score, machine and
commit. Exits with 1 and one line on standard error when the tables or the artifact cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from router_models.artifact import BUNDLED
from router_models.errors import RouterError
from router_models.evaluation.baselines import BagOfWords, length, oracle, subject_gain
from router_models.evaluation.calibration import quality_report, token_report
from router_models.evaluation.origin import origin
from router_models.evaluation.paired import load_pairs
from router_models.evaluation.routellm import PairedOutcomes, gap_recovered
from router_models.evaluation.routing import routing_report
from router_models.evaluation.scored import domain_means, score_unseen
from router_models.router import Router
from router_models.tiers import TIERS
from router_models.training.data import Tables, load_tables

RANDOM_DRAWS = 20


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.evaluation", description="Measure an artifact.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables (parquet)")
    parser.add_argument("--artifact", type=Path, default=BUNDLED, help="artifact to measure (default: the bundled one)")
    parser.add_argument("--json", type=Path, help="file to write; printed on standard output without it")
    parser.add_argument("--seed", type=int, default=0, help="draws the bootstrap and the random router (default: 0)")
    chosen = parser.parse_args(arguments)
    try:
        report = evaluate(chosen.data, Router.load(chosen.artifact), chosen.seed)
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(report, indent=1) + "\n"
    if chosen.json:
        chosen.json.write_text(text)
    else:
        print(text, end="")
    return 0


def evaluate(folder: Path, router: Router, seed: int) -> dict[str, Any]:
    """Everything that is measured, as one JSON-ready document."""
    tables = load_tables(folder)
    scored = score_unseen(tables, router)
    means = domain_means(tables)
    seen, unseen = scored.take(scored.seen_domain), scored.take(~scored.seen_domain)
    return {
        **origin(),
        "artifact": router.version,
        "routellm": _routellm(folder, tables, router, seed),
        "quality": {
            "seen_domains": {tier: quality_report(seen, tier, means[tier]) for tier in TIERS},
            "unseen_domains": {tier: quality_report(unseen, tier, means[tier]) for tier in TIERS},
        },
        "output_tokens": {
            "seen_domains": {tier: token_report(seen, tier) for tier in TIERS},
            "unseen_domains": {tier: token_report(unseen, tier) for tier in TIERS},
        },
        "called_unfamiliar": {
            name: round(float(scored.unfamiliar[scored.domains == name].mean()), 4)
            for name in sorted(set(scored.domains.tolist()))
        },
        "routing": {
            "held_out_stems": routing_report(seen, seed),
            "unseen_domains": routing_report(unseen, seed),
        },
        "microseconds_per_score": _speed(router),
    }


def _routellm(folder: Path, tables: Tables, router: Router, seed: int) -> dict[str, Any]:
    bag_of_words = BagOfWords(tables)
    report: dict[str, Any] = {}
    for data in load_pairs(folder, tables):
        scores = [router.score_prompt(prompt) for prompt in data.prompts]
        methods = {
            "artifact": np.array([score.difficulty for score in scores]),
            "artifact_gain": np.array([score.quality["premium"].p - score.quality["economy"].p for score in scores]),
            "length": length(data.prompts),
            "tfidf_logistic_regression": bag_of_words(data.prompts),
            "subject_gain_leave_one_out": subject_gain(data),
            "oracle": oracle(data, seed),
        }
        rows = {name: _rounded(asdict(gap_recovered(score, data, seed))) for name, score in methods.items()}
        report[data.name] = {
            "prompts": len(data.prompts),
            "always_weak": round(float(data.weak.mean()), 4),
            "always_strong": round(float(data.strong.mean()), 4),
            "random": {"apgr": _random(data, seed)},
            **rows,
        }
    return report


def _random(data: PairedOutcomes, seed: int) -> float:
    rng = np.random.default_rng(seed)
    draws = [gap_recovered(rng.random(data.weak.size), data, seed, resamples=2).apgr for _ in range(RANDOM_DRAWS)]
    return round(float(np.mean(draws)), 4)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}


def _speed(router: Router) -> dict[str, Any]:
    """Median and 99th percentile in microseconds, one thread, warm, for a prompt of about 200 tokens and a huge one."""
    sentence = "The quick brown fox jumps over 12 lazy dogs, and some other animals near the river watch. "
    report: dict[str, Any] = {}
    for name, prompt in (("about_200_tokens", sentence * 10), ("100000_characters", (sentence * 1200)[:100_000])):
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            router.score_prompt(prompt)
            times.append(1e6 * (time.perf_counter() - start))
        report[name] = {"p50": round(float(np.median(times)), 1), "p99": round(float(np.quantile(times, 0.99)), 1)}
    return report


if __name__ == "__main__":
    sys.exit(main())
