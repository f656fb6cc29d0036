"""What is remembered of decisions: through spool and delivery to both databases unchanged, and gone with its request."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.billing.retention import remove
from gateway.config import Retention
from gateway.db.connect import Database
from gateway.db.routing_tables import routing_records
from gateway.db.tables import usage_events
from gateway.db.transaction import snapshot
from gateway.metering.deliver import Deliverer
from gateway.metering.records import decode, encode
from gateway.metering.spool import Spool
from gateway.routed import RoutingRecord
from gateway.types import UsageEvent
from tests.usage import NOW, event

RECORD = RoutingRecord(
    policy="default",
    mode="standard",
    objective="cost",
    min_quality=None,
    fingerprint="3415bb2c713ba892",
    features=bytes(range(256)),
    rank=1.5,
    familiarity=0.25,
    unfamiliar=("no_text", "images"),
    quality=((0.1 + 0.2, 0.1, 0.5), (0.5, 0.25, 0.75), (0.875, 0.5, 1.0)),
    tokens=(10, 20, 30),
    input_tokens=250,
    output_limit=0,
    model="small",
    tier="economy",
    worth=2.5e9,
    needs={"tiers": ["economy"], "max_cost": 5},
    shown=(1.0, -0.25, 0.5),
    reasoning=321,
    prompt="tab\tand \\ backslash, line\nend, 東京",
)


def routed(**changes: object) -> UsageEvent:
    return event(routing=dataclasses.replace(RECORD, **changes))  # type: ignore[arg-type]


def deliver(database: Database, folder: Path, *events: UsageEvent) -> None:
    spool = Spool.open(folder)
    for finished in events:
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(folder, database)
    try:
        assert deliverer.deliver_once().dead_letters == 0
    finally:
        deliverer.close()


@pytest.mark.parametrize(
    "made",
    [
        routed(),
        routed(worth=inf),
        routed(worth=None, features=None, fingerprint=None, prompt=None, unfamiliar=(), needs={}, shown=None),
        event(),
    ],
)
def test_a_record_comes_back_from_the_spool_as_it_went(made: UsageEvent) -> None:
    assert decode(encode(made)) == made


def test_text_that_is_no_unicode_costs_the_text_and_not_the_record() -> None:
    found = decode(encode(routed(prompt="half a pair: \ud800", needs={"service_tier": "\ud800", "choices": 2})))
    assert isinstance(found, UsageEvent)
    assert found.routing is not None
    assert (found.routing.prompt, found.routing.needs) == ("half a pair: ?", {"service_tier": "?", "choices": 2})


def test_every_field_of_a_record_is_in_its_row(database: Database, tmp_path: Path) -> None:
    made = [
        routed(),
        routed(worth=inf),
        routed(features=None, fingerprint=None, prompt=None, worth=None, shown=None),
        event(),
    ]
    deliver(database, tmp_path, *made)
    with snapshot(database) as connection:
        rows = connection.execute(select(routing_records).order_by(routing_records.c.request_id)).mappings().all()
    assert [row["request_id"] for row in rows] == [each.request_id for each in made[:3]]
    first = dict(rows[0])
    assert {name: first[name] for name in ("quality_economy", "low_economy", "high_economy", "tokens_premium")} == {
        "quality_economy": 0.1 + 0.2,
        "low_economy": 0.1,
        "high_economy": 0.5,
        "tokens_premium": 30,
    }
    same = ("policy", "mode", "objective", "min_quality", "fingerprint", "features", "rank", "familiarity", "needs")
    assert first["shown"] == [1.0, -0.25, 0.5]
    assert first["reasoning_tokens"] == 321
    assert rows[2]["shown"] is None
    same += ("input_tokens", "output_limit", "model", "tier", "worth", "prompt")
    assert {name: first[name] for name in same} == {name: getattr(RECORD, name) for name in same}
    assert (first["unfamiliar"], first["tenant"], first["artifact"], first["difficulty"]) == (
        "no_text,images",
        "acme",
        "v1",
        0.25,
    )
    assert first["started_at"] == datetime.fromtimestamp(NOW, UTC)
    assert rows[1]["worth"] == inf
    assert rows[2]["worth"] is None
    assert rows[2]["features"] is None


def test_what_arrives_twice_has_one_record(database: Database, tmp_path: Path) -> None:
    made = routed()
    deliver(database, tmp_path / "one", made)
    deliver(database, tmp_path / "two", made)
    with snapshot(database) as connection:
        assert len(connection.execute(select(routing_records.c.request_id)).all()) == 1


def test_a_text_with_nul_is_delivered(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, routed(prompt="a\0b", needs={"service_tier": "a\0b"}))
    with snapshot(database) as connection:
        assert connection.scalar(select(routing_records.c.prompt)) == "a\ufffdb"


def test_records_go_when_explanations_go_and_requests_stay(database: Database, tmp_path: Path) -> None:
    old, new = routed(), dataclasses.replace(routed(), started_at=NOW + 40 * 86400, finished_at=NOW + 40 * 86400 + 1)
    deliver(database, tmp_path, old, new)
    remove.apply(database, Retention(explanations_days=5), datetime.fromtimestamp(NOW + 41 * 86400, UTC))
    with snapshot(database) as connection:
        assert connection.scalars(select(routing_records.c.request_id)).all() == [new.request_id]
        assert len(connection.scalars(select(usage_events.c.request_id)).all()) == 2
