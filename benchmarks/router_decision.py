"""Measures one decision as a gateway process makes it, and what of it is score and choice, on different prompts; JSON.

    python -m benchmarks.router_decision --data DIR [--prompts 3000] [--table] [--write]

`score` is `Router.score_messages`. `route` is the score and the choice among models that meets it, with conditions that are
known. `decision` is all that stands between a parsed request and the first call: facts, score,
prices, policy and limits, worst costs, the ask, the choice. Prompts of about 200 tokens, each timed once; the process
has seen none of them before. One process, one thread; run it alone. --write keeps the numbers in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from benchmarks.results_file import machine_facts, write
from gateway.api.wire.chat_request import parse_chat_request
from gateway.callers import Caller
from gateway.catalog import build_catalog
from gateway.chat.complete import bound_costs, decide, understand
from gateway.chat.learn import learn_decision
from gateway.chat.question import Question
from gateway.chat.request import ChatRequest
from gateway.chat.route import ask_for
from gateway.config import check_config
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.garbage import keep_what_is_loaded
from gateway.request_ids import new_request_id
from gateway.routing.ask import Ask, Decision, Score
from gateway.services import Services, close_services, open_services
from gateway.settings import read_settings

CHARACTERS = (600, 1000)
"""150 to 250 tokens of four characters."""
WARM = 300
COLLECT_AFTER = 10_000
"""As a gateway process sets its collector (`gateway/app.py`)."""
TARGET = "p50 <= 200, p99 <= 600, >= 4,000/s"
PRICES = {"economy": (0.1, 0.4), "standard": (0.5, 1.5), "premium": (2.5, 10)}
CALLER = Caller("key_1", "app", "default")


def prompts_of(folder: Path, count: int) -> list[str]:
    """So many different prompts of the tables of about 200 tokens, in random order."""
    every = pd.read_parquet(folder / "prompts.parquet", columns=["prompt"])["prompt"].drop_duplicates()
    fitting = every[every.str.len().between(*CHARACTERS)]
    if len(fitting) < count:
        raise SystemExit(
            f"{str(folder)!r} has {len(fitting)} different prompts of this size; ask for at most that many"
        )
    return [str(prompt) for prompt in fitting.sample(count, random_state=0)]


def request_of(prompt: str) -> ChatRequest:
    """A parsed `auto` request."""
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).encode()
    now = time.time()
    return parse_chat_request(body, {}, request_id=new_request_id(now), received_at=now, started=time.perf_counter())


def score_of(request: ChatRequest, services: Services) -> Score:
    """The score alone; that a request has no tools is known before."""
    return services.scorers.for_request(CALLER.policy, request.request_id).score_messages(request.messages)


def route_with(asks: Sequence[Ask]) -> Callable[[ChatRequest, Services], Decision]:
    """Score a request and choose, under the conditions of other requests in turn."""
    conditions = itertools.cycle(asks)

    def route_of(request: ChatRequest, services: Services) -> Decision:
        return decide(next(conditions), score_of(request, services))

    return route_of


def ask_of(request: ChatRequest, services: Services) -> tuple[Ask, Question]:
    """All that a request is routed by, its score included."""
    question = understand(request, CALLER, services)
    bounds = bound_costs(question, services)
    return ask_for(question, bounds.worst_costs(question.asked.models), services.routing), question


def decision_of(request: ChatRequest, services: Services) -> Decision:
    """What `complete_chat` does before the first call."""
    ask, question = ask_of(request, services)
    decision = decide(ask, question.score)
    learn_decision(question, decision, services.routing)
    return decision


def timed(
    work: Callable[[ChatRequest, Services], object], prompts: Sequence[str], services: Services
) -> dict[str, Any]:
    """Microseconds of one call, by the wall and by the processor; the latter is not delayed by a busy machine."""
    requests = [request_of(prompt) for prompt in prompts]
    walls = []
    begun = time.process_time()
    for request in requests:
        start = time.perf_counter()
        work(request, services)
        walls.append(1e6 * (time.perf_counter() - start))
    worked = 1e6 * (time.process_time() - begun) / len(requests)
    return {
        "prompts": len(prompts),
        "p50": round(float(np.median(walls)), 1),
        "p99": round(float(np.quantile(walls, 0.99)), 1),
        "processor_mean": round(worked, 1),
        "per_second_and_core": round(1e6 / worked),
    }


async def measured(prompts: Sequence[str], folder: Path) -> dict[str, Any]:
    """All three, in the process of a gateway with a model in each tier and the default policy."""
    models = [
        {"name": f"of-{tier}", "tier": tier, "provider": "scripted", "price": {"input": into, "output": out}}
        for tier, (into, out) in PRICES.items()
    ]
    settings = read_settings({"PENSTOCK_DATA_DIR": str(folder)})
    catalog = build_catalog(check_config({"models": models}, "benchmark"), "benchmark")
    database = connect(settings.database(catalog.database))
    migrate(database)
    database.close()
    services = await open_services(settings, catalog, None)
    try:
        warm, rest = prompts[:WARM], prompts[WARM:]
        timed(decision_of, warm, services)
        services.routing.promises.renew()
        keep_what_is_loaded(look_after=COLLECT_AFTER)
        third = len(rest) // 3
        route_of = route_with([ask_of(request_of(prompt), services)[0] for prompt in warm])
        report: dict[str, Any] = {
            "score": timed(score_of, rest[:third], services),
            "route": timed(route_of, rest[third : 2 * third], services),
            "decision": timed(decision_of, rest[2 * third :], services),
        }
        went = {decision_of(request_of(prompt), services).candidates[0].model.name for prompt in warm}
        return {**report, "models_chosen": sorted(went)}
    finally:
        await close_services(services)


def table(report: dict[str, Any]) -> str:
    """The numbers as Markdown."""
    names = {
        "score": "score alone, different prompts of 200 tokens",
        "route": "score and choice, different prompts of 200 tokens",
        "decision": "whole decision in a gateway process, different prompts of 200 tokens",
    }
    rows = ["| microseconds | p50 | p99 | processor | per second and core | target |", "|---|---|---|---|---|---|"]
    for key, name in names.items():
        each = report[key]
        target = TARGET if key == "decision" else "part of the decision"
        rows.append(
            f"| {name} | {each['p50']} | {each['p99']} | {each['processor_mean']} | {each['per_second_and_core']} | {target} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables (parquet)")
    parser.add_argument("--prompts", type=int, default=3000, help="how many for the three together (default: 3000)")
    parser.add_argument("--table", action="store_true", help="print a table in Markdown instead of JSON")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    facts, prompts = machine_facts(), prompts_of(given.data, WARM + given.prompts)
    with tempfile.TemporaryDirectory() as name:
        numbers = {"microseconds": asyncio.run(measured(prompts, Path(name)))}
    print(table(numbers["microseconds"]) if given.table else json.dumps(numbers, indent=2))
    if given.write:
        print(write("router_decision", numbers, facts))


if __name__ == "__main__":
    main()
