"""Measures the money path: atomic reserve, spool append, and delivery to SQL with ledger. Prints and writes JSON.

    python benchmarks/billing_spool.py [--events 20000] [--database URL ...] [--out benchmarks/results/billing_spool.json]

Delivery is measured into SQLite, and into every --database given (PostgreSQL: an empty database). CPU times are of this
process; for PostgreSQL the server's own work comes on top, in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.billing.budgets import budget_claims
from gateway.billing.cost import rate_usage
from gateway.billing.ledger import verify
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.limits.rates import rate_claims
from gateway.metering.deliver import Deliverer
from gateway.metering.normalise import normalise
from gateway.metering.spool import Spool
from gateway.store.memory import MemoryStore
from gateway.types import METERS, Attempt, Budget, Caller, Hold, PriceList, RateLimit, UsageEvent

COST = PriceList(dict.fromkeys(METERS, 2500000000000), "benchmark")
CHARGE = PriceList(dict.fromkeys(METERS, 3000000000000), "benchmark +20%")
RAW_USAGE = {
    "prompt_tokens": 812,
    "completion_tokens": 240,
    "total_tokens": 1052,
    "prompt_tokens_details": {"cached_tokens": 512},
    "completion_tokens_details": {"reasoning_tokens": 128},
}
CALLER = Caller(
    "key_0123456789abcdef",
    "app",
    "acme",
    budgets=(
        Budget("tenant:acme", 10**18, "month"),
        Budget("key:key_0123456789abcdef", 10**18, "day"),
        Budget("tenant:acme", 10**18, "lifetime"),
    ),
    limits=(
        RateLimit("key:key_0123456789abcdef", "requests", 10**12),
        RateLimit("key:key_0123456789abcdef", "tokens", 10**15),
        RateLimit("key:key_0123456789abcdef", "parallel", 10**6),
        RateLimit("tenant:acme", "requests", 10**12),
        RateLimit("tenant:acme", "tokens", 10**15),
    ),
)


def hold(number: int, now: float) -> Hold:
    """A hold like the gateway's."""
    return Hold(f"req_{number:026d}", "acme", CALLER.key_id, 5_000_000_000, now, now + 660, "app", "auto")


def event(number: int, now: float) -> UsageEvent:
    """A finished request with cached and reasoning tokens, so with four rated lines per book."""
    usage = normalise(RAW_USAGE)
    attempt = Attempt(
        1, f"model-{number % 5}", "openai", "upstream-model", now, 1.25, "ok", None, usage, RAW_USAGE,
        rate_usage(usage, COST), rate_usage(usage, CHARGE),
    )  # fmt: skip
    explanation = {
        "policy": "default",
        "candidates": [{"model": f"model-{index}", "quality": 0.9, "expected_usd": "0.00123"} for index in range(3)],
        "rejected": [{"model": "large", "reason": "dearer and not needed"}],
    }
    return UsageEvent(
        f"req_{number:026d}", f"tenant-{number % 20}", CALLER.key_id, "app", None, ("batch",), "auto", attempt.model,
        "openai", "standard", 0.31, "2026-11-01", "cheapest with the asked quality", explanation, "completed", None, True,
        False, now, now + 1.25, 0.2, 0.0007, 5_000_000_000, (attempt,),
    )  # fmt: skip


async def reserve_and_adjust(rounds: int) -> float:
    """CPU of one request's claims, reserve and adjust in memory: five limits, three budgets; microseconds, median of 9."""
    store = MemoryStore()
    names = [f"req_{number}" for number in range(rounds)]
    found = []
    for _ in range(9):
        started = time.thread_time()
        for name in names:
            now = time.time()
            claims = [*budget_claims(CALLER, 5_000_000, now), *rate_claims(CALLER, 1500, name, now)]
            assert await store.reserve(claims) is None
            await store.adjust([(claim, claim.amount // 2) for claim in claims])
        found.append((time.thread_time() - started) / rounds * 1e6)
    return round(statistics.median(found), 2)


def append_to_spool(folder: Path, events: int) -> dict[str, float]:
    """CPU and wall time of one hold and one settle, microseconds, fsync thread running."""
    now = time.time()
    holds = [hold(number, now) for number in range(events)]
    settled = [event(number, now) for number in range(events)]
    spool = Spool.open(folder)
    waits = []
    cpu, wall = time.thread_time(), time.perf_counter()
    for first, last in zip(holds, settled, strict=True):
        before = time.perf_counter()
        spool.hold(first)
        spool.settle(last)
        waits.append(time.perf_counter() - before)
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    spool.close()
    size = sum(path.stat().st_size for path in folder.glob("*.spool"))
    waits.sort()
    return {
        "hold_and_settle_cpu_us": round(cpu / events * 1e6, 2),
        "hold_and_settle_wall_us": round(wall / events * 1e6, 2),
        "hold_and_settle_p99_us": round(waits[int(events * 0.99)] * 1e6, 1),
        "bytes_per_request": round(size / events),
    }


def deliver(folder: Path, url: str, events: int) -> dict[str, Any]:
    """Events per second into a database, ledger included, and whether the books are right afterwards."""
    database = connect(url)
    migrate(database)
    deliverer = Deliverer(folder, database)
    cpu, wall = time.process_time(), time.perf_counter()
    done = deliverer.deliver_once()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    deliverer.close()
    checked = verify(database, folder)
    result = {
        "database": database.engine.dialect.name,
        "events": done.events,
        "events_per_second": round(done.events / wall),
        "events_per_cpu_second": round(done.events / cpu),
        "books_ok": checked.ok and done.events == events,
    }
    database.close()
    return result


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--database", action="append", default=[], help="PostgreSQL URL of an empty database")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"claim_reserve_adjust_cpu_us": asyncio.run(reserve_and_adjust(5_000)), "delivery": []}
    with tempfile.TemporaryDirectory() as folder:
        for url in [f"sqlite:///{folder}/bench.db", *options.database]:
            spool = Path(folder) / f"spool{len(results['delivery'])}"
            results["spool"] = append_to_spool(spool, options.events)
            results["delivery"].append(deliver(spool, url, options.events))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    results["machine"] = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    results["commit"] = commit.stdout.strip()
    results["command"] = f"python benchmarks/billing_spool.py --events {options.events}"
    text = json.dumps(results, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
