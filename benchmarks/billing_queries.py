"""Measures reports and request lists over a month of many requests in PostgreSQL; prints JSON.

    python -m benchmarks.billing_queries [--rows 10000000] [--write]

Starts a PostgreSQL of its own, makes usage rows and attempts with SQL (rated lines and ledger are left out, as nothing here
reads them), makes the roll-ups with the product's own command, and asks the product's own functions. Needs about 15 GB of disk
for 10 million rows. --write keeps the numbers in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.billing_spool import cpu_of
from benchmarks.results_file import machine_facts, write
from gateway.db import partitions
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.roll_up import remake
from gateway.db.transaction import snapshot, transaction
from gateway.garbage import keep_what_is_loaded
from gateway.reports.requests.queries import RequestFilter, page_of_requests
from gateway.reports.usage.parts import Part
from gateway.reports.usage.report import sum_up, usage_report
from gateway.types import METERS
from tests.backends import PostgresServer, running_postgres

MONTH = datetime(2026, 10, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
SECONDS = (END - MONTH).total_seconds()
CHUNK = 500_000
TARGETS = {"report_ms": 200, "page_ms": 50}

# Drawn from the request's number n: small tenants are asked less, one request in fifty falls back to a second model.
SPREAD = "(hashint8(n) & 2147483647)"
TENANT = f"('tenant-' || lpad((power({SPREAD} % 10007 / 10007.0, 2) * 50)::int::text, 2, '0'))"
KEY = f"('key_' || substr(md5({TENANT} || {SPREAD} / 7 % 4), 1, 16))"
MODEL = f"('model-' || floor(sqrt({SPREAD} / 11 % 36))::int)"
OUTCOME = (
    f"(CASE WHEN {SPREAD} / 13 % 1000 < 975 THEN 'completed' WHEN {SPREAD} / 13 % 1000 < 990 THEN 'failed' "
    f"WHEN {SPREAD} / 13 % 1000 < 999 THEN 'cut' ELSE 'interrupted' END)"
)
FALLBACK = f"({SPREAD} / 17 % 50 = 0)"
AMOUNTS = {
    "input": f"300 + {SPREAD} % 4000",
    "cache_read": "512",
    "output": f"100 + {SPREAD} % 700",
    "reasoning": "128",
}
EXPLANATION = (
    '{"policy": "default", "candidates": [{"model": "model-1", "quality": 0.93, "expected_usd": "0.00123"}, '
    '{"model": "model-4", "quality": 0.97, "expected_usd": "0.00812"}], "rejected": [{"model": "model-5", '
    '"reason": "dearer and not needed"}]}'
)


def usage_statement(first: int, last: int, rows: int) -> str:
    """Usage rows n in [first, last]."""
    started = f"(timestamptz '2026-10-01T00:00:00Z' + n * interval '{SECONDS / rows:.9f} seconds')"
    attempts_of = f"(CASE WHEN {OUTCOME} = 'interrupted' THEN 0 WHEN {FALLBACK} THEN 2 ELSE 1 END)"
    buckets = ", ".join(f"({AMOUNTS.get(meter, '0')}) * calls" for meter in METERS)
    return (
        "INSERT INTO usage_events (request_id, tenant, key_id, key_name, end_user, session_id, tags, requested_model, model, "
        "provider, tier, difficulty, decision, explanation, outcome, streamed, disconnected, started_at, finished_at, "
        f"overhead_seconds, hold_pico, attempt_count, {', '.join(METERS)}, estimated, cost_pico, charge_pico) "
        "SELECT 'req_' || lpad(to_hex((extract(epoch FROM started) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'), "
        f"{TENANT}, {KEY}, 'app', CASE WHEN n % 5 = 0 THEN 'user-' || {SPREAD} % 20000 END, "
        f"CASE WHEN n % 20 = 0 THEN 'run-' || n / 400 END, '[\"batch\"]', "
        f"CASE WHEN n % 10 < 6 THEN 'auto' ELSE {MODEL} END, CASE WHEN outcome IN ('completed', 'cut') THEN {MODEL} END, "
        f"CASE WHEN outcome IN ('completed', 'cut') THEN 'provider-' || right({MODEL}, 1)::int % 3 END, "
        f"CASE WHEN outcome IN ('completed', 'cut') THEN 'standard' END, 0.4, 'cheapest with the asked quality', "
        f"'{EXPLANATION}', outcome, true, false, started, started + interval '2 seconds', 0.0007, 5000000000, calls, "
        f"{buckets}, false, calls * 2500000000, calls * 3000000000 "
        f"FROM (SELECT n, {started} AS started, {OUTCOME} AS outcome, {attempts_of} AS calls "
        f"FROM generate_series({first}::bigint, {last}::bigint) AS g(n)) AS drawn"
    )


ATTEMPTS = (
    "INSERT INTO attempts (request_id, request_started_at, number, model, provider, upstream_model, started_at, seconds, "
    f"status, {', '.join(METERS)}, estimated, raw_usage, cost_pico, charge_pico) "
    "SELECT request_id, started_at, number, "
    "CASE WHEN number = attempt_count THEN coalesce(model, 'model-0') ELSE 'model-0' END, "
    "CASE WHEN number = attempt_count THEN coalesce(provider, 'provider-0') ELSE 'provider-0' END, 'upstream', started_at, "
    f"1.5, 'ok', {', '.join(f'{meter} / attempt_count' for meter in METERS)}, false, "
    '\'{"prompt_tokens": 812, "completion_tokens": 240, "total_tokens": 1052}\', '
    "2500000000, 3000000000 FROM usage_events, generate_series(1, attempt_count) AS number "
    "WHERE started_at >= '{since}' AND started_at < '{until}'"
)


def fill(database: Database, rows: int) -> dict[str, float]:
    """Make the month; seconds of each step. Indexes are made after the rows, as a restore would."""
    migrate(database)
    seconds: dict[str, float] = {}
    with transaction(database) as connection:
        partitions.open_months(connection, [MONTH])
        indexes = connection.exec_driver_sql(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'usage_events' AND indexname LIKE 'usage_events_by%%'"
        ).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    seconds["usage"] = timed(lambda: [one(database, usage_statement(n, min(n + CHUNK, rows) - 1, rows))
                                      for n in range(0, rows, CHUNK)])  # fmt: skip
    days = [MONTH + timedelta(days=day) for day in range((END - MONTH).days)]
    made = [ATTEMPTS.replace("{since}", f"{day:%Y-%m-%dT00:00:00Z}").replace(
        "{until}", f"{day + timedelta(days=1):%Y-%m-%dT00:00:00Z}") for day in days]  # fmt: skip
    seconds["attempts"] = timed(lambda: [one(database, statement) for statement in made])
    seconds["indexes"] = timed(
        lambda: [one(database, definition.replace(" ON ONLY ", " ON ")) for _, definition in indexes]
    )

    def roll_up() -> None:
        for day in days:
            with transaction(database) as connection:
                remake(connection, day, day + timedelta(days=1))

    seconds["roll_ups"] = timed(roll_up)
    seconds["analyze"] = timed(lambda: one(database, "ANALYZE"))
    return seconds


def one(database: Database, statement: str) -> None:
    """One statement in a transaction of its own."""
    with transaction(database) as connection:
        connection.exec_driver_sql(statement.replace("%", "%%"))


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 1)


@dataclass(frozen=True)
class Clock:
    """Times work. CPU is that of this process and the server's; a busy machine lengthens it less than it does waiting."""

    server: int

    def measure(self, work: Callable[[], object], times: int = 15) -> dict[str, float]:
        """Milliseconds: the first time, then median and worst of the next ones, and their CPU on average."""
        found = []
        cpu = 0.0
        for number in range(times + 1):
            if number == 1:
                cpu = self._cpu()
            started = time.perf_counter()
            work()
            found.append((time.perf_counter() - started) * 1000)
        cpu = (self._cpu() - cpu) / times * 1000
        median, worst = statistics.median(found[1:]), max(found[1:])
        shown = {"first": found[0], "median": median, "worst": worst, "cpu": cpu}
        return {name: round(value, 1) for name, value in shown.items()}

    def _cpu(self) -> float:
        return time.process_time() + cpu_of(self.server)


def reports(database: Database, clock: Clock) -> dict[str, Any]:
    """The month by tenant, model and day, and other questions of the dashboard."""
    ragged = (MONTH + timedelta(days=3, minutes=17), MONTH + timedelta(days=24, hours=5, minutes=41))
    asked = {
        "tenant,model,day": (MONTH, END), "tenant,model": (MONTH, END), "key": (MONTH, END), "project,tier": (MONTH, END),
        "hour": (MONTH, END), "outcome": ragged,
    }  # fmt: skip
    return {
        groups: {
            **clock.measure(lambda groups=groups, span=span: usage_report(database, *span, groups.split(","))),  # type: ignore[misc]
            "rows": len(usage_report(database, *span, groups.split(",")).rows),
        }
        for groups, span in asked.items()
    }


def equal_to_rows(database: Database) -> dict[str, Any]:
    """The same report from the rows alone: is it the same, and how long does it take?"""
    groups = ("tenant", "model", "day")
    started = time.perf_counter()
    slow = sum_up(database, MONTH, END, groups, [Part("rows", MONTH, END)])
    return {
        "same": slow == usage_report(database, MONTH, END, groups),
        "seconds": round(time.perf_counter() - started, 1),
    }


def pages(database: Database, clock: Clock) -> dict[str, Any]:
    """One page of 50, at the top, in the middle and near the end, without and with filters."""
    with snapshot(database) as connection:
        key = connection.exec_driver_sql(
            "SELECT key_id FROM usage_events WHERE tenant = 'tenant-40' LIMIT 1"
        ).scalar_one()
    wanted = {
        "all": {}, "tenant": {"tenant": "tenant-00"}, "small tenant": {"tenant": "tenant-49"}, "key": {"key": key},
        "model": {"model": "model-1"}, "outcome completed": {"outcome": "completed"}, "outcome cut": {"outcome": "cut"},
        "outcome interrupted": {"outcome": "interrupted"}, "tenant, model": {"tenant": "tenant-40", "model": "model-0"},
        "tenant, outcome": {"tenant": "tenant-49", "outcome": "cut"},
        "tenant, rare outcome": {"tenant": "tenant-49", "outcome": "interrupted"},
        "tenant, key, model, outcome": {"tenant": "tenant-40", "key": key, "model": "model-0", "outcome": "cut"},
        "nothing fits": {"tenant": "tenant-40", "model": "model-none"}, "session": {"tenant": "tenant-00", "session": "run-5"},
        "tag": {"tag": "batch"},
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, given in wanted.items():
        found[name] = {}
        for depth in (0, 0.5, 0.999):
            before = f"{END - timedelta(seconds=SECONDS * depth):%Y-%m-%dT%H:%M:%S.%fZ}/x"
            times = clock.measure(lambda: page_of_requests(database, 50, before, RequestFilter(**given)))  # noqa: B023
            shown = len(page_of_requests(database, 50, before, RequestFilter(**given)).requests)
            found[name][f"{depth:.1%} deep"] = {**times, "shown": shown}
    return found


def sizes(database: Database) -> dict[str, float]:
    """Gigabytes with indexes."""
    tables = ("usage_events_2026_10", "attempts_2026_10", "usage_hours", "usage_days", "usage_groups")
    with snapshot(database) as connection:
        return {
            table: round(connection.exec_driver_sql(f"SELECT pg_total_relation_size('{table}')").scalar_one() / 1e9, 3)
            for table in tables
        }


def measure(server: PostgresServer, rows: int) -> dict[str, Any]:
    """Fill a database and ask it."""
    server.execute("CREATE DATABASE bench")
    filling = connect(server.url("bench"), deadline_seconds=3600)
    seconds = fill(filling, rows)
    database = connect(server.url("bench"))
    keep_what_is_loaded(look_after=10_000)  # as a gateway does
    clock = Clock(server.process.pid)
    numbers: dict[str, Any] = {
        "rows": rows, "fill_seconds": seconds, "gigabytes": sizes(database), "reports_ms": reports(database, clock),
        "pages_ms": pages(database, clock), "targets_ms": TARGETS, "report_from_rows": equal_to_rows(filling),
    }  # fmt: skip
    pages_of = [times for depths in numbers["pages_ms"].values() for times in depths.values()]
    for what in ("worst", "median", "cpu"):
        numbers[f"slowest_page_{what}_ms"] = max(times[what] for times in pages_of)
    database.close()
    filling.close()
    return numbers


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/billing_queries.json")
    options = parser.parse_args()
    facts = machine_facts()
    with running_postgres() as server:
        numbers = measure(server, options.rows)
    print(json.dumps(numbers, indent=2))
    if options.write:
        write("billing_queries", numbers, facts)


if __name__ == "__main__":
    main()
