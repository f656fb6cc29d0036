"""Measures the way of usage: spool appends, delivery to SQL with its ledger; prints JSON.

    python -m benchmarks.billing_spool [--events 20000] [--postgresql] [--publish] [--write]

Delivery goes into SQLite and, with --postgresql, into a server that is started for it. CPU of the deliverer and of the
server's processes is counted apart. With --publish every request goes to the outbox as well. --write keeps the numbers in
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.results_file import machine_facts, write
from gateway.billing.cost import rate_usage
from gateway.billing.ledger import verify
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.garbage import keep_what_is_loaded
from gateway.metering.deliver import Deliverer
from gateway.metering.normalise import normalise
from gateway.metering.spool import Spool
from gateway.types import METERS, Attempt, Hold, PriceList, UsageEvent

COST = PriceList(dict.fromkeys(METERS, 2500000000000), "benchmark")
CHARGE = PriceList(dict.fromkeys(METERS, 3000000000000), "benchmark +20%")
RAW_USAGE = {
    "prompt_tokens": 812,
    "completion_tokens": 240,
    "total_tokens": 1052,
    "prompt_tokens_details": {"cached_tokens": 512},
    "completion_tokens_details": {"reasoning_tokens": 128},
}
KEY = "key_0123456789abcdef"


def hold(number: int, now: float) -> Hold:
    """A hold like the gateway's."""
    return Hold(f"req_{number:026d}", "acme", KEY, 5_000_000_000, now, now + 660, "app", "auto")


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
        f"req_{number:026d}", f"tenant-{number % 20}", KEY, "app", None, ("batch",), "auto", attempt.model,
        "openai", "standard", 0.31, "2026-11-01", "cheapest with the asked quality", explanation, "completed", None, True,
        False, now, now + 1.25, 0.2, 0.0007, 5_000_000_000, (attempt,),
    )  # fmt: skip


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


def deliver(folder: Path, url: str, events: int, server: int | None, publish: bool) -> dict[str, Any]:
    """Events per second into a database, ledger included, and whether the books are right afterwards."""
    database = connect(url)
    migrate(database)
    keep_what_is_loaded(look_after=200_000)
    deliverer = Deliverer(folder, database, publish=publish)
    cpu, served, wall = time.process_time(), cpu_of(server), time.perf_counter()
    done = deliverer.deliver_once()
    cpu, served, wall = time.process_time() - cpu, cpu_of(server) - served, time.perf_counter() - wall
    deliverer.close()
    checked = verify(database, folder)
    result = {
        "database": database.engine.dialect.name,
        "outbox": publish,
        "events_per_second": round(done.events / wall),
        "deliverer_cpu_us_per_event": round(cpu / done.events * 1e6, 1),
        "server_cpu_us_per_event": round(served / done.events * 1e6, 1),
        "events_per_cpu_second": round(done.events / (cpu + served)),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "books_ok": checked.ok and done.events == events,
    }
    database.close()
    return result


def cpu_of(server: int | None) -> float:
    """CPU seconds of a process and its children so far (Linux)."""
    ticks = 0
    for folder in Path("/proc").iterdir() if server is not None else ():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if folder.name == str(server) or fields[1] == str(server):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument(
        "--postgresql", action="store_true", help="deliver into PostgreSQL, too (its binaries must be here)"
    )
    parser.add_argument("--publish", action="store_true", help="write every request to the outbox, too")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/billing_spool.json")
    options = parser.parse_args()
    facts = machine_facts()
    numbers: dict[str, Any] = {"delivery": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets: list[tuple[str, int | None]] = [(f"sqlite:///{folder / 'bench.db'}", None)]
        if options.postgresql:
            from tests.backends import running_postgres

            server = stack.enter_context(running_postgres())
            server.execute("CREATE DATABASE bench")
            targets.append((server.url("bench"), server.process.pid))
        for number, (url, process) in enumerate(targets):
            numbers["spool"] = append_to_spool(folder / f"spool{number}", options.events)
            numbers["delivery"].append(
                deliver(folder / f"spool{number}", url, options.events, process, options.publish)
            )
    print(json.dumps(numbers, indent=2))
    if options.write:
        write("billing_spool", numbers, facts)


if __name__ == "__main__":
    main()
