"""Measures how often a challenger is taken back that is as good, and after how many labels one that is worse; prints JSON.

    python -m benchmarks.router_challengers [--seeds 1000] [--labels 2000] [--write]

Labels are drawn by chance: right or wrong, 70 % right for the champion. Bounds hold at every look at once, so the first look
that decides is found by halving. One process, one thread. --write keeps the numbers in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import random
from statistics import median, quantiles
from typing import Any

from benchmarks.results_file import machine_facts, write
from gateway.config_routing import Rollback
from gateway.routing.compare import COMPARISONS
from gateway.routing.sequential import Seen, bounded, paired

SHARES = (0.1, 0.5)
DROPS = (0.05, 0.1, 0.2, 0.3)
RIGHT = 0.7
RULES = Rollback()
ERROR = (1.0 - RULES.confidence) / COMPARISONS


def differences(seed: int, share: float, drop: float, labels: int) -> list[float]:
    """Blocks of a stream of labels in which the challenger has so many."""
    drawn, stream, count = random.Random(seed), [], 0
    while count < labels:
        second = drawn.random() < share
        count += second
        stream.append(Seen(second, float(drawn.random() < RIGHT - (drop if second else 0.0))))
    return paired(stream)


def is_worse(blocks: list[float]) -> bool:
    """Whether it is proved after these blocks that more is lost than the margin."""
    return bounded(blocks, -1.0, 1.0, ERROR).high < -RULES.margin


def decided_after(blocks: list[float]) -> int | None:
    """The first number of blocks after which it is proved; None when it never is."""
    if not is_worse(blocks):
        return None
    low, high = 0, len(blocks)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_worse(blocks[:middle]) else (middle, high)
    return high


def taken_back(share: float, drop: float, labels: int, seeds: int) -> dict[str, Any]:
    """Over many challengers that are worse by `drop`: how many are taken back, and after how many of their labels."""
    after = [decided_after(differences(seed, share, drop, labels)) for seed in range(seeds)]
    # A block has one label of the side that has fewer of them, so about as many labels as blocks at a small share.
    found = sorted(each for each in after if each is not None)
    tenths = quantiles(found, n=10) if len(found) > 1 else []
    return {
        "share": share,
        "worse_by": drop,
        "challengers": seeds,
        "labels_at_most": labels,
        "taken_back": len(found) / seeds,
        "blocks_median": median(found) if found else None,
        "blocks_90_percent": round(tenths[8]) if tenths else None,
    }


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    given, facts = parser.parse_args(), machine_facts()
    numbers = {
        "rules": RULES.model_dump(mode="json"),
        "as_good": [taken_back(share, 0.0, given.labels, given.seeds) for share in SHARES],
        "at_the_margin": [taken_back(share, RULES.margin, given.labels, given.seeds) for share in SHARES],
        "worse": [taken_back(share, drop, given.labels, given.seeds // 10) for share in SHARES for drop in DROPS],
    }
    print(json.dumps(numbers, indent=2))
    if given.write:
        print(write("router_challengers", numbers, facts))


if __name__ == "__main__":
    main()
