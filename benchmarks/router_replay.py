"""Measures replaying past requests, and what remembering a request costs; prints JSON.

    python -m benchmarks.router_replay [--requests 100000] [--models 3] [--postgresql] [--write]

Fills a database with requests whose features are drawn at random (so no text is needed), scored by the bundled artifact and
routed by the gateway's own decision; replays them as they were scored, under a lower floor, and scored again by another one.
One process, one thread. --write keeps the numbers in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.results_file import machine_facts, write
from gateway.billing.cost import rate_usage
from gateway.callers import NO_TERMS
from gateway.catalog import Catalog, build_catalog
from gateway.chat.replaying import Wish, run_replay
from gateway.config import check_config
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.transaction import transaction
from gateway.metering import queries
from gateway.metering.records import encode
from gateway.routing.ask import Ask
from gateway.routing.decide import decide_route
from gateway.routing.remember import remember
from gateway.types import Attempt, PriceSheet, Usage, UsageEvent
from router_models import artifact
from router_models.features import Features
from router_models.kept import Packer
from router_models.router import Router, Score
from tests.backends import running_postgres

START = datetime(2026, 10, 1, tzinfo=UTC)
TIERS = ("economy", "standard", "premium")
PRICES = {"economy": (0.1, 0.4), "standard": (0.5, 1.5), "premium": (2.5, 10)}
BATCH = 4000


def configured(models: int) -> Catalog:
    """So many models, a third of them in each tier, at rising prices; each prompt keeps 90 % of the best quality."""
    entries = []
    for number in range(models):
        tier = TIERS[number % len(TIERS)]
        into, out = (price * (1 + number // len(TIERS) / 10) for price in PRICES[tier])
        price = {"input": round(into, 4), "output": round(out, 4)}
        entries.append({"name": f"{tier}-{number}", "tier": tier, "provider": "scripted", "price": price})
    policies = {"default": {"min_quality": 0.9, "floor": "each"}}
    return build_catalog(check_config({"models": entries, "policies": policies}, "benchmark"), "benchmark")


def drawn_features(router: Router, count: int, seed: int) -> Iterator[Features]:
    """Prompts near the landmarks of the training data, at random distances from them."""
    weights, numbers = router.artifact.weights, np.random.default_rng(seed)
    shapes = weights.centre.size
    for _ in range(count):
        standard = numbers.normal(0.0, 1.0, shapes).astype(np.float32)
        landmark = weights.landmarks[numbers.integers(len(weights.landmarks))]
        meaning = landmark[shapes:] / np.maximum(weights.pull[shapes:], 1e-6) + weights.middle
        meaning = meaning + numbers.normal(0.0, 0.03, meaning.size).astype(np.float32)
        known = int(numbers.integers(3, 120))
        whole = numbers.choice(np.flatnonzero(router.artifact.embedder.is_word), known, replace=False)
        shape = (weights.centre + standard * weights.scale).astype(np.float32)
        yield Features(shape, meaning / np.linalg.norm(meaning), [""] * known, whole, known)


def events(catalog: Catalog, router: Router, count: int) -> Iterator[UsageEvent]:
    """Finished `auto` requests, spread over ten days."""
    packer, numbers = Packer(), random.Random(7)
    sheets = tuple(PriceSheet.flat(model.price) for model in catalog.models if model.price is not None)
    for number, features in enumerate(drawn_features(router, count, 11)):
        score = router.score_features(features)
        ask = ask_of(catalog, sheets, numbers.randrange(20, 3000), number)
        yield finished(ask, score, packer, number, count)


def ask_of(catalog: Catalog, sheets: tuple[PriceSheet, ...], tokens: int, number: int) -> Ask:
    """A plain `auto` request."""
    return Ask(
        models=catalog.models,
        prices=sheets,
        service_tier=None,
        auto=True,
        mode="standard",
        tier=None,
        allowed_tiers=None,
        allowed_models=None,
        needs=frozenset(),
        input_tokens=tokens,
        input_tokens_least=tokens // 4,
        output_tokens=0,
        choices=1,
        worst_costs=(0,) * len(catalog.models),
        min_quality=0.9,
        objective="cost",
        max_cost=None,
        fallbacks=True,
        spread=number,
    )


def finished(ask: Ask, score: Score, packer: Packer, number: int, count: int) -> UsageEvent:
    """What the gateway would have written down of it."""
    decision = decide_route(ask, score)
    model = decision.candidates[0].model
    usage = Usage(input=ask.input_tokens, output=round(score.expected_output_tokens["standard"]))
    rated = rate_usage(usage, ask.prices[model.index].plain)  # type: ignore[union-attr]
    started = (START + timedelta(days=10) * (number / count)).timestamp()
    seconds = 0.3 + usage.output * 0.01
    call = Attempt(
        1, model.name, model.provider, model.name, started, seconds, "ok", None, usage, None, rated, rated
    )  # fmt: skip
    routing = remember(
        ask, decision, how="features", policy="default", min_quality=None, terms=NO_TERMS, sizes={}, messages=(), packer=packer
    )  # fmt: skip
    return UsageEvent(
        request_id=f"req_{number:024x}", tenant="default", key_id="key_1", key_name="app", session_id=None, tags=(),
        requested_model="auto", model=model.name, provider=model.provider, tier=model.tier, difficulty=score.difficulty,
        artifact=score.artifact, decision=decision.reason, explanation={}, outcome="completed", error_code=None,
        streamed=False, disconnected=False, started_at=started, finished_at=started + seconds,
        seconds_to_first_token=None, overhead_seconds=0.0, hold=0, attempts=(call,), routing=routing,
    )  # fmt: skip


def fill(database: Database, catalog: Catalog, router: Router, count: int) -> list[UsageEvent]:
    """Write them as the deliverer does. Returns the last batch."""
    migrate(database)
    batch: list[UsageEvent] = []
    for number, event in enumerate(events(catalog, router, count), 1):
        batch.append(event)
        if len(batch) == BATCH or number == count:
            with transaction(database) as connection:
                queries.insert_usage(connection, batch)
            batch, done = [], batch
    return done


def another_artifact(router: Router, folder: Path) -> Path:
    """The bundled artifact with other heads: what it says differs, what it takes does not."""
    made, path = router.artifact, folder / "other.npz"
    weights = replace(made.weights, kernel=made.weights.kernel * np.float32(0.8))
    artifact.save(path, weights, list(made.domains), list(made.models), "other", {}, made.embedder, made.sample)
    return path


def measured(work: Callable[[], dict[str, Any]], times: int = 3) -> dict[str, Any]:
    """Seconds of the wall and of the processor, of each try; what was moved."""
    walls, cpus, result = [], [], {}
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        walls.append(round(time.perf_counter() - wall, 2))
        cpus.append(round(time.process_time() - cpu, 2))
    moved, replayed = result["moved"]["share"], result["requests"]["replayed"]
    return {"wall_seconds": walls, "cpu_seconds": cpus, "requests": replayed, "moved_share": moved}


def remembering(event: UsageEvent, catalog: Catalog, router: Router) -> dict[str, Any]:
    """Microseconds (the quickest of many rounds) and bytes that one request takes more."""
    packer, features = Packer(), next(drawn_features(router, 1, 5))
    sheets = tuple(PriceSheet.flat(model.price) for model in catalog.models if model.price is not None)
    ask, score = ask_of(catalog, sheets, 250, 1), router.score_features(features)
    decision, bare = decide_route(ask, score), replace(event, routing=None)

    def record() -> object:
        return remember(
            ask, decision, how="features", policy="default", min_quality=None, terms=NO_TERMS, sizes={}, messages=(),
            packer=packer,
        )  # fmt: skip

    return {
        "pack_microseconds": quickest(lambda: packer.pack(features)),
        "record_microseconds": quickest(record),
        "encode_microseconds": round(quickest(lambda: encode(event)) - quickest(lambda: encode(bare)), 2),
        "bytes_in_spool": len(encode(event)) - len(encode(bare)),
        "bytes_of_features": len(packer.pack(features)),
    }


def quickest(work: Callable[[], object], rounds: int = 300, times: int = 200) -> float:
    """Microseconds of one call in the quickest round: other processes only ever make it longer."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - begun) / times)
    return round(best * 1e6, 2)


@contextmanager
def database_for(postgresql: bool, folder: Path) -> Iterator[str]:
    """A new SQLite file, or a PostgreSQL of its own."""
    if not postgresql:
        yield f"sqlite:///{folder / 'replay.db'}"
        return
    with running_postgres() as server:
        server.execute("CREATE DATABASE replay")
        yield server.url("replay")


def main() -> None:
    """Fill, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    facts, router, catalog = machine_facts(), Router.load(), configured(given.models)
    with tempfile.TemporaryDirectory() as name, database_for(given.postgresql, Path(name)) as url:
        database = connect(url, deadline_seconds=600)
        last = fill(database, catalog, router, given.requests)
        wish = Wish(START, START + timedelta(days=11), min_quality=0.7)
        other = replace(wish, artifact=another_artifact(router, Path(name)))
        numbers = {
            "requests": given.requests,
            "models": given.models,
            "database": "postgresql" if given.postgresql else "sqlite",
            "other_policy": measured(lambda: run_replay(database, catalog, wish)),
            "other_artifact": measured(lambda: run_replay(database, catalog, other)),
            "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "remembering": remembering(last[-1], catalog, router),
        }
        database.close()
    print(json.dumps(numbers, indent=2))
    if given.write:
        print(write("router_replay", numbers, facts))


if __name__ == "__main__":
    main()
