"""Measures exports: a month of a million requests from PostgreSQL to Parquet and FOCUS; time and memory of each; prints JSON.

    python -m benchmarks.billing_exports [--rows 1000000] [--sqlite] [--write]

The month is made inside PostgreSQL (or SQLite), ledger included; each export is a process of its own. --write keeps the
numbers in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.results_file import ROOT, machine_facts, write
from gateway.billing.ledger import verify
from gateway.db import partitions
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.transaction import transaction
from gateway.types import METERS

EXPORTS = (
    ("parquet", "--view", "provider", "--period", "2026-09"),
    ("focus", "--view", "tenant", "--period", "2026-09"),
    ("focus", "--view", "provider", "--format", "parquet", "--period", "2026-09"),
    ("csv", "--view", "provider", "--period", "2026-09"),
    ("journal", "--period", "2026-09"),
    ("focus", "--view", "tenant", "--period", "2026-10"),
    ("journal", "--period", "2026-10"),
)
"""September has all requests but the late ones, October bills those."""
DEADLINE = 300.0
TENANTS, MODELS = 20, 5
"""Every tenant uses every model every day: 12,000 rows of FOCUS."""
# Quantities by meter as SQL over the request's number n, and pico-USD per million units by model; charge is 20 % more.
QUANTITIES = {"input": "300 + n % 97", "cache_read": "512", "output": "112 + n % 31", "reasoning": "128"}
RATE = "(1 + n / 20 % 5) * 500000000000"
CHARGE_RATE = "(1 + n / 20 % 5) * 600000000000"


def account_rows() -> str:
    """The ledger's accounts as SQL; entries name them by their place."""
    owners = [("receivable", [f"tenant-{n}" for n in range(TENANTS)]), ("revenue", [f"model-{n}" for n in range(MODELS)]),
              ("cost", ["openai"]), ("payable", ["openai"])]  # fmt: skip
    names = [
        (f"tenant:{owner}:receivable" if kind == "receivable" else f"{kind}:{owner}", kind, owner)
        for kind, several in owners
        for owner in several
    ]
    return ", ".join(f"({number}, '{a}', '{b}', '{c}')" for number, (a, b, c) in enumerate(names, 1))


def statements(rows: int, sqlite: bool) -> list[str]:
    """Usage rows, attempts, rated lines and ledger of a month, as SQL that both databases run."""
    step = 30 * 86_400 // rows if rows < 2_592_000 else 1
    if sqlite:
        numbers = f"WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {rows}) "
        moment = f"strftime('%Y-%m-%d %H:%M:%S.000000', 1788220800 + n * {step}, 'unixepoch')"
        name, source, empty = "printf('req_%026d', n)", "g", "'[]', '{}'"
    else:
        numbers = ""
        moment = f"to_timestamp(1788220800 + n * {step})"
        name, source = "'req_' || lpad(n::text, 26, '0')", f"generate_series(1, {rows}) AS g(n)"
        empty = "'[]'::json, '{}'::json"
    columns = ", ".join(METERS)
    buckets = ", ".join(QUANTITIES.get(meter, "0") for meter in METERS)
    units = " + ".join(f"({text})" for text in QUANTITIES.values())
    cost, charge = (f"(({units}) * ({rate}) / 1000000)" for rate in (RATE, CHARGE_RATE))
    tenant, model = f"'tenant-' || (n % {TENANTS})", f"'model-' || (n / {TENANTS} % {MODELS})"
    made = [
        "INSERT INTO usage_events (request_id, tenant, key_id, key_name, tags, explanation, requested_model, model, provider, "
        "tier, decision, outcome, streamed, disconnected, started_at, finished_at, overhead_seconds, hold_pico, "
        f"attempt_count, {columns}, estimated, cost_pico, charge_pico) {numbers}SELECT {name}, {tenant}, 'key_1', 'app', "
        f"{empty}, 'auto', {model}, 'openai', 'standard', 'cheapest', 'completed', true, false, {moment}, {moment}, "
        f"0.001, 0, 1, {buckets}, false, {cost}, {charge} FROM {source}",
        "INSERT INTO attempts (request_id, request_started_at, number, model, provider, upstream_model, started_at, seconds, "
        f"status, {columns}, estimated, cost_pico, charge_pico) {numbers}SELECT {name}, {moment}, 1, {model}, 'openai', "
        f"{model}, {moment}, 1.5, 'ok', {buckets}, false, {cost}, {charge} FROM {source}",
    ]
    made += [
        "INSERT INTO rated_lines (request_id, request_started_at, attempt, book, meter, quantity, rate, amount_pico) "
        f"{numbers}SELECT {name}, {moment}, 1, '{book}', '{meter}', {quantity}, {rate}, ({quantity}) * ({rate}) / 1000000 "
        f"FROM {source}"
        for book, rate in (("cost", RATE), ("charge", CHARGE_RATE))
        for meter, quantity in QUANTITIES.items()
    ]
    made.append(f"INSERT INTO ledger_accounts (id, name, kind, owner) VALUES {account_rows()}")
    made.append(
        "INSERT INTO ledger_transactions (id, request_id, kind, occurred_at, posted_at) "
        f"{numbers}SELECT n, {name}, 'usage', {moment}, {moment} FROM {source}"
    )
    entries = (
        (f"1 + n % {TENANTS}", charge),
        (f"{TENANTS + 1} + n / {TENANTS} % {MODELS}", f"-{charge}"),
        (f"{TENANTS + MODELS + 1}", cost),
        (f"{TENANTS + MODELS + 2}", f"-{cost}"),
    )
    made += [
        "INSERT INTO ledger_entries (transaction_id, account_id, amount_pico) "
        f"{numbers}SELECT n, {account}, {amount} FROM {source}"
        for account, amount in entries
    ]
    # One request in fifty came after its month was closed and is billed in the next one.
    made.append(
        "INSERT INTO late_events (request_id, tenant, charge_period, period, arrived_at) "
        f"{numbers}SELECT {name}, {tenant}, '2026-09', '2026-10', {moment} FROM {source} WHERE n % 50 = 0"
    )
    return [*made, "ANALYZE"]


def fill(database: Database, rows: int) -> float:
    """Make the month; returns the seconds it took."""
    started = time.perf_counter()
    migrate(database)
    with transaction(database) as connection:
        partitions.open_months(connection, [datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)])
        for statement in statements(rows, database.is_sqlite):
            connection.exec_driver_sql(statement.replace("%", "%%") if not database.is_sqlite else statement)
    return round(time.perf_counter() - started, 1)


def measure(url: str, arguments: tuple[str, ...], out: Path) -> dict[str, Any]:
    """One export as a process: seconds, peak memory, rows, bytes, total."""
    command = [
        sys.executable,
        "-m",
        "gateway",
        "export",
        *arguments,
        "--out",
        str(out),
        "--json",
    ]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, stdout=output)
        _, status, used = wait_for(process, started + DEADLINE)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if status != 0:
        raise SystemExit(f"{' '.join(arguments)} failed with status {status}")
    file = json.loads(text)["files"][0]
    total = next(file["totals"][name] for name in ("BilledCost", "charge_usd", "debit_usd") if name in file["totals"])
    return {
        "export": " ".join(arguments),
        "seconds": round(seconds, 1),
        "peak_memory_mib": used.ru_maxrss // 1024,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "rows": file["rows"],
        "megabytes": round(file["bytes"] / 1e6, 1),
        "total_usd": total,
    }


def wait_for(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, int, resource.struct_rusage]:
    """The end of a process and what it used; one that is late is killed."""
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return pid, process.returncode, used
        if time.perf_counter() > deadline:
            process.kill()
            deadline = float("inf")
        time.sleep(0.02)


def main() -> None:
    """Fill, export, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sqlite", action="store_true", help="from SQLite instead of PostgreSQL")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/billing_exports.json")
    options = parser.parse_args()
    facts = machine_facts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder / 'bench.db'}"
        if not options.sqlite:
            from tests.backends import running_postgres

            server = stack.enter_context(running_postgres())
            server.execute("CREATE DATABASE bench")
            url = server.url("bench")
        # Filling is one long statement per table; exports run under the usual deadline.
        database = connect(url, deadline_seconds=600)
        numbers: dict[str, Any] = {"database": database.engine.dialect.name, "requests": options.rows}
        numbers["fill_seconds"] = fill(database, options.rows)
        if options.rows <= 50_000:
            numbers["books_ok"] = verify(database, folder).ok
        database.close()
        numbers["exports"] = [measure(url, arguments, folder / "out") for arguments in EXPORTS]
    print(json.dumps(numbers, indent=2))
    if options.write:
        write("billing_exports", numbers, facts)


if __name__ == "__main__":
    main()
