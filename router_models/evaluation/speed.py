"""Time of one score and memory of a process that scores: warm. Alone: python -m router_models.evaluation.speed --data DIR."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router_models.evaluation.origin import origin
from router_models.evaluation.paired import load_pairs
from router_models.router import Router
from router_models.training.data import load_tables

CALLS = 3000
SENTENCE = "The quick brown fox jumps over 12 lazy dogs, and some other animals near the river watch. "
# About 200 tokens without repetition, as requests are; the repeated sentence is what the first artifact was timed with.
VARIED = """I keep the accounts of a small bakery and want to understand last quarter better. In April we sold 1,840
loaves of rye at 3.20 euro, in May 2,115 at 3.35 and in June 1,990 at 3.35; flour rose from 0.78 to 0.91 euro
per kilogram in the middle of May, and each loaf needs about 620 grams, plus salt, yeast and 0.14 kWh of
electricity. Two apprentices left, so overtime doubled. Please work out the margin per loaf for every month,
explain which of the changes mattered most, and say whether raising the price again would be wise, given that
the supermarket across the street asks only 2.60. What further figures would you need before giving advice?
Answer in plain language that my partner, who never studied economics, can follow, and put the numbers into a
short table at the end. If something in my description contradicts itself, point it out instead of guessing
silently."""
# Memory over that of an interpreter with numpy alone is what the router adds to a gateway process.
MEASURE = (
    "import resource, numpy; pages = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() // 1024; "
    "base = pages(); from router_models import Router; router = Router.load(); router.score_prompt('hello there'); "
    "print(base, pages())"
)


def speed_report(router: Router, prompts: Sequence[str] = ()) -> dict[str, Any]:
    """Microseconds for a prompt of about 200 tokens and a huge one: of the wall, and of the processor alone (a busy machine
    delays the former); scores per second of processor time; resident mebibytes with and without a loaded router. Of `prompts`
    those of 150 to 250 tokens (four characters each) are scored once each: every one is new to the process.
    """
    fresh = [prompt for prompt in prompts if 600 <= len(prompt) <= 1000][:CALLS]
    timed = {
        "about_200_tokens": [VARIED] * CALLS,
        "about_200_tokens_repeated": [SENTENCE * 10] * CALLS,
        "100000_characters": [(SENTENCE * 1200)[:100_000]] * (CALLS // 4),
        **({"about_200_tokens_all_different": fresh} if fresh else {}),
    }
    router.score_prompt("hello there")
    report: dict[str, Any] = {name: _timed(router, each) for name, each in timed.items()}
    report["load_average"] = round(os.getloadavg()[0], 2)
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)  # noqa: S603
    base, loaded = (int(value) / 1024 for value in done.stdout.split())
    report["memory_mib"] = {"numpy_alone": round(base, 1), "with_router": round(loaded, 1)}
    return report


def _timed(router: Router, prompts: Sequence[str]) -> dict[str, Any]:
    router.score_prompt(prompts[0])
    times = []
    begun = time.process_time()
    for prompt in prompts:
        start = time.perf_counter()
        router.score_prompt(prompt)
        times.append(1e6 * (time.perf_counter() - start))
    worked = 1e6 * (time.process_time() - begun) / len(prompts)
    return {
        "prompts": len(set(prompts)),
        "calls": len(prompts),
        "p50": round(float(np.median(times)), 1),
        "p99": round(float(np.quantile(times, 0.99)), 1),
        "processor_mean": round(worked, 1),
        "per_second_and_core": round(1e6 / worked),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure the bundled artifact alone, for a moment when nothing else runs; prints JSON and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.evaluation.speed", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables (parquet)")
    folder = parser.parse_args(arguments).data
    prompts = [prompt for data in load_pairs(folder, load_tables(folder)) for prompt in data.prompts]
    router = Router.load()
    command = "python -m router_models.evaluation.speed --data DIR"
    measured = {"artifact": router.version, "microseconds_per_score": speed_report(router, prompts)}
    print(json.dumps({**origin(), "benchmark": "router_speed", "command": command, **measured}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
