"""Real prompts through the running gateway, on recorded answers: tiers, quality and cost, and whether the books agree.

    python -m benchmarks.main_job --data DIR [--kill] [--requests 200]

Starts the replay upstream and the gateway, asks every prompt as `auto`, always small, always medium and always large,
and compares what the upstream delivered, what the client received, `penstock usage` and the ledger. With --kill the
gateway is killed three times (kill -9) while it answers `auto`. Exit status 1 when a text differs or the books do not agree.
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
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks import job_ledger, job_prompts, recorded_answers, results_file
from benchmarks.job_books import PICO_PER_USD, Bill, Books, reported_bill, total
from benchmarks.job_client import Arm, Signals, run_arm
from benchmarks.job_gateway import KILLS, PRICES, Gateway
from benchmarks.processes import ServerFailedError, free_port, start
from benchmarks.recorded_answers import TIER_MODELS, Prompt, RecordedAnswers
from benchmarks.results_file import ROOT

ARMS = {"auto": "auto", "always-small": "small", "always-medium": "medium", "always-large": "large"}


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


def run_job(args: argparse.Namespace, recorded: RecordedAnswers, prompts: list[Prompt]) -> tuple[list[Books], bool]:
    """All arms, then their books, and whether `penstock ledger verify` found nothing."""
    with tempfile.TemporaryDirectory(prefix="main-job-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        root = stack.enter_context(upstream(args, folder))
        gateway = Gateway(folder, f"{root}/v1", {arm: f"sk-job-{secrets.token_hex(24)}" for arm in ARMS})
        gateway.write_config()
        stack.callback(gateway.stop)
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        gateway.start()
        arms, ends = [], [0]
        for arm_name, model in ARMS.items():
            arms.append(Arm(arm_name, model))
            asyncio.run(ask_all(arms[-1], prompts, gateway, kill=args.kill and arm_name == "auto"))
            ends.append(len(upstream_replies(root)))
        replies = upstream_replies(root)
        billed = job_ledger.billed(
            gateway.data / "penstock.db", {one.request_id for arm in arms for one in arm.finished}
        )
        usage = gateway.ask("usage", "--since", began, "--group-by", "key_name")["rows"]
        reported = {row["key_name"]: reported_bill(row) for row in usage}
        books = [
            Books(
                arm,
                killed=args.kill and arm.name == "auto",
                replies=replies[start_:end],
                billed=[one for one in billed if one.key_name == arm.name],
                reported=reported.get(arm.name, Bill()),
            )
            for arm, start_, end in zip(arms, ends[:-1], ends[1:], strict=True)
        ]
        return books, gateway.command("ledger", "verify").returncode == 0


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
        "cost_usd": bill.cost / PICO_PER_USD,
        "charge_usd": bill.charge / PICO_PER_USD,
        "bill": asdict(bill),
        "upstream_delivered": asdict(books.delivered()),
        "broken_replies": len(books.arm.broken),
        "checks": books.checks(recorded),
    }


def random_mix(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What the shares of `auto` would give if prompts were dealt to tiers by chance: the least a router must beat."""
    share = rows["auto"]["share"]
    kinds = ("accuracy", "cost_usd")
    return {kind: sum(part * rows[f"always-{model}"][kind] for model, part in share.items()) for kind in kinds}


def as_markdown(rows: dict[str, dict[str, Any]], mix: dict[str, float]) -> str:
    """The table for the README; costs are what the provider asks, per 1,000 requests."""
    lines = ["| | small / medium / large | accuracy | USD per 1,000 requests |", "|---|---|---|---|"]
    for name, row in rows.items():
        shares = " / ".join(f"{100 * part:.0f} %" for part in row["share"].values())
        cost = 1000 * row["cost_usd"] / row["requests"]
        lines.append(f"| {name} | {shares} | {100 * row['accuracy']:.1f} % | {cost:.4f} |")
    cost = 1000 * mix["cost_usd"] / rows["auto"]["requests"]
    lines.append(f"| the shares of auto, dealt by chance | | {100 * mix['accuracy']:.1f} % | {cost:.4f} |")
    return "\n".join(lines)


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
    parser.add_argument("--kill", action="store_true", help="kill -9 the gateway three times during the first pass")
    parser.add_argument("--out", type=Path, help="where to write the JSON (benchmarks/results/main_job[_kill].json)")
    args = parser.parse_args()
    facts = results_file.machine_facts()
    try:
        recorded = recorded_answers.load(args.data)
        prompts = job_prompts.choose(recorded, args.requests, args.seed)
        all_books, verified = run_job(args, recorded, prompts)
    except (FileNotFoundError, ValueError, ServerFailedError) as error:
        parser.exit(1, f"{error}\n")
    rows = {books.arm.name: row_of(books, recorded) for books in all_books}
    mix = random_mix(rows)
    failed = [f"{name}: {check}" for name, row in rows.items() for check, holds in row["checks"].items() if not holds]
    failed += [] if verified else ["penstock ledger verify"]
    numbers = {
        "prompts": Counter(prompt.dataset for prompt in prompts),
        "prices_usd_per_1m": PRICES,
        "tier_models": TIER_MODELS,
        "rows": rows,
        "auto_shares_dealt_by_chance": mix,
        "ledger_verify": verified,
        "failed_checks": failed,
    }
    path = results_file.write("main_job_kill" if args.kill else "main_job", numbers, facts, args.out)
    print(as_markdown(rows, mix))
    print(f"\nchecks that failed: {json.dumps(failed)}\nwritten: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
