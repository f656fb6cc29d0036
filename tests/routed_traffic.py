"""Artifacts that differ from the bundled one in a known way, and routed, labelled requests in the real tables."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.billing.cost import rate_usage
from gateway.db.connect import Database
from gateway.db.tables import moment
from gateway.db.transaction import transaction
from gateway.labels.queries import label_row, write_labels
from gateway.metering.queries import insert_usage, open_months
from gateway.request_ids import new_request_id
from gateway.routed import RoutingRecord
from gateway.types import METERS, PriceList, Usage, UsageEvent
from gateway.verdicts import Label, Source
from router_models.artifact import load, save
from tests.usage import attempt, event

AT_A_TIME = 2000
RATES = PriceList(dict.fromkeys(METERS, 1_000_000), "test")


def variant(folder: Path, name: str, shift: float = 0.0, models: Sequence[str] | None = None, **others: Any) -> bytes:
    """The bundled artifact under another name, its probabilities moved by `shift` logits, with other weights if named.

    `models` are what its recorded models are called.
    """
    bundled = load()
    weights = dataclasses.replace(bundled.weights, offset=bundled.weights.offset + shift, **others)
    path = folder / f"{name}.npz"
    called = list(models or bundled.models)
    save(path, weights, list(bundled.domains), called, name, {"name": name}, bundled.embedder)
    return path.read_bytes()


@dataclass(frozen=True)
class Request:
    """One request that `auto` routed: by which artifact, when, how good its answer is, what it costs (tokens), how long."""

    artifact: str
    at: float
    score: float | None = None
    tokens: int = 100
    failed: bool = False
    seconds: float = 1.0
    rank: float = 0.0
    predicted: tuple[float, float, float] = (0.4, 0.6, 0.8)
    input_tokens: int = 100
    unfamiliar: tuple[str, ...] = ()
    policy: str = "default"
    tier: str = "economy"
    mode: str = "standard"
    fingerprint: str | None = None
    features: bytes | None = None


def written(
    database: Database, requests: Sequence[Request], source: Source = "exact", seed: int | None = None
) -> list[str]:
    """Write requests as the deliverer does, and their labels; the ids, in order.

    Ids decide which prompts are held out and which artifact is asked; with a seed they are the same every time.
    """
    ids, drawn = [], None if seed is None else random.Random(seed)
    for start in range(0, len(requests), AT_A_TIME):
        part = requests[start : start + AT_A_TIME]
        events = [_event(each, drawn) for each in part]
        labels = [
            label_row(
                made.request_id,
                moment(made.started_at),
                made.tenant,
                each.policy,
                Label("small", each.tier, each.score),
                source,
                "",
                made.finished_at,
            )
            for each, made in zip(part, events, strict=True)
            if each.score is not None
        ]
        with transaction(database) as connection:
            open_months(connection, [each.at for each in part])
            insert_usage(connection, events)
            write_labels(connection, labels)
        ids += [made.request_id for made in events]
    return ids


def split(
    seed: int,
    count: int,
    start: float,
    first: Callable[[random.Random], Request],
    second: Callable[[random.Random], Request],
    share: float = 0.1,
    every: float = 10.0,
) -> list[Request]:
    """Requests of two artifacts in turn as chance and the share have it, one every few seconds."""
    chance = random.Random(seed)
    made = [(second if chance.random() < share else first)(chance) for _ in range(count)]
    return [dataclasses.replace(each, at=start + number * every) for number, each in enumerate(made)]


def _event(given: Request, drawn: random.Random | None) -> UsageEvent:
    named = new_request_id(given.at)
    if drawn is not None:
        named = named[:-20] + drawn.randbytes(10).hex()
    usage = Usage(input=given.tokens)
    call = attempt(usage=usage, cost=rate_usage(usage, RATES), charge=rate_usage(usage, RATES))
    return event(
        call,
        request_id=named,
        started_at=given.at,
        finished_at=given.at + given.seconds,
        outcome="failed" if given.failed else "completed",
        tier=given.tier,
        artifact=given.artifact,
        difficulty=1.0 - given.predicted[0],
        routing=RoutingRecord(
            policy=given.policy,
            mode=given.mode,
            objective="cost",
            min_quality=None,
            fingerprint=given.fingerprint,
            features=given.features,
            rank=given.rank,
            familiarity=0.5,
            unfamiliar=given.unfamiliar,
            quality=tuple((each, each / 2, (1 + each) / 2) for each in given.predicted),
            tokens=(10, 20, 30),
            input_tokens=given.input_tokens,
            output_limit=0,
            model="small",
            tier=given.tier,
        ),
    )
