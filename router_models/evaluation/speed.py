"""Time of one score and memory of a process that scores: one thread, warm, after one warm-up call."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np

from router_models.router import Router

CALLS = 3000
SENTENCE = "The quick brown fox jumps over 12 lazy dogs, and some other animals near the river watch. "
# Memory over that of an interpreter with numpy alone is what the router adds to a gateway process.
MEASURE = (
    "import resource, numpy; pages = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() // 1024; "
    "base = pages(); from router_models import Router; router = Router.load(); router.score_prompt('hello there'); "
    "print(base, pages())"
)


def speed_report(router: Router) -> dict[str, Any]:
    """Microseconds for a prompt of about 200 tokens and a huge one: of the wall, and of the processor alone (a busy machine
    delays the former); scores per second of processor time; resident mebibytes with and without a loaded router.
    """
    report: dict[str, Any] = {}
    for name, prompt in (("about_200_tokens", SENTENCE * 10), ("100000_characters", (SENTENCE * 1200)[:100_000])):
        router.score_prompt(prompt)
        times = []
        begun = time.process_time()
        for _ in range(CALLS):
            start = time.perf_counter()
            router.score_prompt(prompt)
            times.append(1e6 * (time.perf_counter() - start))
        worked = 1e6 * (time.process_time() - begun) / CALLS
        report[name] = {
            "p50": round(float(np.median(times)), 1),
            "p99": round(float(np.quantile(times, 0.99)), 1),
            "processor_mean": round(worked, 1),
            "per_second_and_core": round(1e6 / worked),
        }
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)  # noqa: S603
    base, loaded = (int(value) / 1024 for value in done.stdout.split())
    report["memory_mib"] = {"numpy_alone": round(base, 1), "with_router": round(loaded, 1)}
    return report
