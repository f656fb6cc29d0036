"""Real prompts through the running gateway, on recorded answers: tiers, quality and cost, and whether the books agree.

    python -m benchmarks.main_job --data DIR [--kill] [--requests 200]

Starts the replay upstream and the gateway, asks every prompt as `auto`, as `auto` with lower quality floors, and always
small, medium and large; then compares what the upstream delivered, what the client received, `penstock usage` and the
ledger. With --kill only the `auto` passes run, and the gateway is killed (kill -9) three times in each of them. Exit
status 1 when a text differs or the books do not agree.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks import job_ledger, job_prompts, recorded_answers, results_file
from benchmarks.job_books import PICO_PER_USD, Bill, Billed, Books, reported_bill, total
from benchmarks.job_client import Arm, Signals, run_arm
from benchmarks.job_gateway import KILLS, PRICES, Gateway
from benchmarks.processes import ServerFailedError, free_port, start
from benchmarks.recorded_answers import TIER_MODELS, Prompt, RecordedAnswers
from benchmarks.results_file import ROOT


@dataclass(frozen=True)
class Job:
    """What a run leaves: the books of every arm, what `penstock ledger verify` printed, and its exit status.

    `strays` are requests in the books that belong to no arm's key.
    """

    books: list[Books]
    strays: list[Billed]
    verified: dict[str, Any]
    verify_exit: int


def arms_of(floors: list[float], kill: bool) -> list[Arm]:
    """`auto` as the policy has it and at each floor; without kills also one arm per fixed tier, to compare with."""
    auto = [Arm("auto", "auto"), *(Arm(f"auto_at_{100 * floor:.0f}", "auto", floor) for floor in floors)]
    return auto + ([] if kill else [Arm(f"always_{tier}", tier) for tier in TIER_MODELS])


@contextlib.contextmanager
def upstream(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The replay upstream as a process of its own; gives its root URL."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.replay_upstream", "--data", str(args.data.resolve())]
    command += ["--port", str(port), "--latency", str(args.latency), *(["--split-usage"] if args.split_usage else [])]
    server = start("upstream", command, {"PYTHONPATH": str(ROOT)}, None, folder)
    try:
        server.wait_until_ready(f"http://127.0.0.1:{port}/v1/models", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


async def ask_all(arm: Arm, prompts: list[Prompt], gateway: Gateway, kill: bool) -> None:
    """One pass over the prompts; with `kill`, every way of KILLS happens once, evenly spread over the pass."""
    signals = Signals(asyncio.Event(), asyncio.Queue())
    signals.serving.set()

    async def killer() -> None:
        for place, how in enumerate(KILLS, start=1):
            while await signals.progress.get() < len(prompts) * place // (len(KILLS) + 1):
                pass
            if how != "worker":  # the worker's socket stays open: clients may knock while it is started anew
                signals.serving.clear()
            await asyncio.to_thread(gateway.kill, how)
            signals.serving.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(run_arm(arm, prompts, gateway.base_url, gateway.keys[arm.name], signals))
        if kill:
            group.create_task(killer())


def run_job(args: argparse.Namespace, prompts: list[Prompt]) -> Job:
    """All arms one after the other, then their books."""
    with tempfile.TemporaryDirectory(prefix="main-job-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        root = stack.enter_context(upstream(args, folder))
        arms = arms_of(args.floors, args.kill)
        gateway = Gateway(folder, f"{root}/v1", {arm.name: f"sk-job-{secrets.token_hex(24)}" for arm in arms})
        gateway.write_config()
        stack.callback(gateway.stop)
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        gateway.start()
        ends = [0]
        for arm in arms:
            asyncio.run(ask_all(arm, prompts, gateway, args.kill))
            ends.append(len(upstream_replies(root)))
        replies = upstream_replies(root)
        verified = gateway.settle()
        billed = job_ledger.billed(gateway.data / "penstock.db")
        usage = gateway.ask("usage", "--since", began, "--group-by", "key_name")["rows"]
        reported = {row["key_name"]: reported_bill(row) for row in usage}
        books = [
            Books(
                arm,
                killed=args.kill,
                replies=replies[ends[place] : ends[place + 1]],
                billed=[one for one in billed if one.key_name == arm.name],
                reported=reported.get(arm.name, Bill()),
            )
            for place, arm in enumerate(arms)
        ]
        strays = [one for one in billed if one.key_name not in gateway.keys]
        return Job(books, strays, verified, gateway.command("ledger", "verify").returncode)


def upstream_replies(root: str) -> list[dict[str, Any]]:
    """The upstream's own list of the replies that ended, in order, once none is under way any more."""
    while True:
        state = httpx.get(f"{root}/replay/delivered", timeout=30).json()
        if not state["in_progress"]:
            replies: list[dict[str, Any]] = state["replies"]
            return replies
        time.sleep(0.1)


def row_of(books: Books, recorded: RecordedAnswers) -> dict[str, Any]:
    """One line of the table: shares per tier, accuracy by recorded score, money, and what was billed."""
    finished = books.arm.finished
    answers = [recorded.find(one.prompt.text, one.model) for one in finished]
    scores = [answer.score for answer in answers if answer is not None and answer.score is not None]
    bill = total(one.bill for one in books.billed)
    asked = Counter(one.model for one in finished)
    return {
        "requests": len(finished),
        "share": {model: round(asked[model] / len(finished), 4) for model in TIER_MODELS},
        "accuracy": round(sum(scores) / len(scores), 4),
        "cost_usd_per_1000": round(1000 * bill.cost / PICO_PER_USD / len(finished), 4),
        "bill": asdict(bill),
        "upstream_delivered": asdict(books.delivered()),
        "broken_replies": len(books.arm.broken),
        "delivered_to_nobody": books.delivered().requests - len(finished),
        "outcomes": Counter(one.outcome for one in books.billed),
        "checks": books.checks(recorded),
    }


def add_chance(rows: dict[str, dict[str, Any]]) -> None:
    """To every row of `auto`: what its shares would give if prompts were dealt to tiers by chance, knowing nothing."""
    for name, row in rows.items():
        if name.startswith("auto"):
            row["by_chance"] = {
                kind: round(sum(part * rows[f"always_{tier}"][kind] for tier, part in row["share"].items()), 4)
                for kind in ("accuracy", "cost_usd_per_1000")
            }


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table for the README. Costs are what the provider asks, per 1,000 requests."""
    lines = ["| | small / medium / large | accuracy | USD per 1,000 | accuracy by chance | USD by chance |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in rows.items():
        shares = " / ".join(f"{100 * part:.0f} %" for part in row["share"].values())
        cells = [name.replace("_", " "), shares, f"{100 * row['accuracy']:.1f} %", f"{row['cost_usd_per_1000']:.3f}"]
        chance = row.get("by_chance")
        cells += [f"{100 * chance['accuracy']:.1f} %", f"{chance['cost_usd_per_1000']:.3f}"] if chance else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_kill_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """What became of the replies while the gateway was killed."""
    lines = [
        "| | whole replies | billed exactly once | broke off, asked again | sent by the upstream as the gateway died |"
    ]
    lines.append("|---|---|---|---|---|")
    for name, row in rows.items():
        once = "all" if row["checks"]["every finished reply is billed exactly once"] else "NOT all"
        cells = [
            name.replace("_", " "),
            str(row["requests"]),
            once,
            str(row["broken_replies"]),
            str(row["delivered_to_nobody"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def floors(text: str) -> list[float]:
    """`0.9,0.8` as numbers."""
    return [float(part) for part in text.split(",") if part]


def main() -> int:
    """Read the command line, run the job, write the result, print table and checks. 0 when every check holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.main_job", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with prompts, outcomes and responses.parquet")
    parser.add_argument("--requests", type=int, default=200, help="prompts per pass (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which prompts are drawn (%(default)s)")
    parser.add_argument(
        "--latency", default="0.05", help="seconds per reply of the upstream, or 'recorded' (%(default)s)"
    )
    parser.add_argument(
        "--split-usage", action="store_true", help="have some tokens reported as cached and as reasoning"
    )
    parser.add_argument("--kill", action="store_true", help="kill -9 the gateway three times during each pass")
    parser.add_argument(
        "--floors", type=floors, default="0.9,0.8,0.7", help="`auto` with these min_quality too (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results/main_job[_kill].json)")
    args = parser.parse_args()
    facts = results_file.machine_facts()
    try:
        recorded = recorded_answers.load(args.data)
        prompts = job_prompts.choose(recorded, args.requests, args.seed)
        job = run_job(args, prompts)
    except (FileNotFoundError, ValueError, ServerFailedError) as error:
        parser.exit(1, f"{error}\n")
    rows = {books.arm.name: row_of(books, recorded) for books in job.books}
    if not args.kill:
        add_chance(rows)
    failed = [f"{name}: {check}" for name, row in rows.items() for check, holds in row["checks"].items() if not holds]
    if total(one.bill for one in job.strays) != Bill(requests=len(job.strays)):
        failed.append("a request of no arm's key was billed")
    failed += [] if job.verify_exit == 0 else ["penstock ledger verify"]
    numbers = {
        "prompts": Counter(prompt.dataset for prompt in prompts),
        "prices_usd_per_1m": PRICES,
        "tier_models": TIER_MODELS,
        "rows": rows,
        "requests_of_no_arm": Counter(one.outcome for one in job.strays),
        "ledger_verify": {"exit": job.verify_exit, **job.verified},
        "failed_checks": failed,
    }
    path = results_file.write("main_job_kill" if args.kill else "main_job", numbers, facts, args.out)
    print(as_kill_markdown(rows) if args.kill else as_markdown(rows))
    print(f"\nchecks that failed: {json.dumps(failed)}\nwritten: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
