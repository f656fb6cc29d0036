"""What SQL says a counter stands at, for every kind of owner, on both databases."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.billing.counters.queries import used
from gateway.db.connect import Database, connect
from gateway.db.transaction import transaction
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.types import Hold, UsageEvent
from tests.usage import attempt, event, hold_of

NOW = datetime(2026, 11, 21, 22, 30, tzinfo=UTC).timestamp()
DAY = 86_400
TOKENS = 155
"""Of one default attempt: 100 + 20 in, 30 + 5 out."""


def deliver(database: Database, folder: Path, *records: UsageEvent | Hold) -> None:
    spool = Spool.open(folder)
    for record in records:
        if isinstance(record, Hold):
            spool.hold(record)
        else:
            spool.settle(record)
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()
    spool.close()


def open_hold(**changes: object) -> Hold:
    return dataclasses.replace(hold_of(event(hold=777), created_at=NOW), **changes)  # type: ignore[arg-type]


OWNERS = [
    ("tenant:acme", {}),
    ("project:acme/web/shop", {"project": "web/shop"}),
    ("key:key_7", {"key_id": "key_7"}),
    ("user:acme/bob", {"end_user": "bob"}),
    ("tag:acme/bätch", {"tags": ("x", "bätch")}),
]


@pytest.mark.parametrize(("scope", "owned"), OWNERS, ids=[scope.partition(":")[0] for scope, _ in OWNERS])
def test_usage_of_the_window_counts_for_its_owner(
    database: Database, tmp_path: Path, scope: str, owned: dict[str, object]
) -> None:
    inside = event(started_at=NOW, **owned)
    before, foreign = event(started_at=NOW - DAY, **owned), event(started_at=NOW, **{**owned, "tenant": "acme2"})
    other = event(started_at=NOW, project="web", end_user="bobby", tags=("bätch2",), key_id="key_70")
    deliver(database, tmp_path, inside, before, foreign, other)
    extra = other if scope == "tenant:acme" else None
    count = 2 if extra else 1
    assert used(database, f"budget-day/2026-11-21/{scope}", "acme", NOW) == inside.charge * count
    assert used(database, f"budget-lifetime/ever/{scope}", "acme", NOW) == inside.charge * (count + 1)
    assert used(database, f"budget-month/2026-10/{scope}", "acme", NOW) == 0
    assert used(database, f"budget-week/2026-W47/{scope}", "acme", NOW) == inside.charge * (count + 1)
    assert used(database, f"requests-day/2026-11-21/{scope}", "acme", NOW) == count
    assert used(database, f"tokens-day/2026-11-21/{scope}", "acme", NOW) == TOKENS * count


def test_a_model_counts_its_own_attempts(database: Database, tmp_path: Path) -> None:
    first = attempt(1, model="small", status="error")
    second = attempt(2, model="large")
    both = event(first, second, started_at=NOW)
    deliver(database, tmp_path, both, event(attempt(1, model="small"), started_at=NOW))
    counter = "{}/2026-11-21/model:acme/{}"
    assert used(database, counter.format("budget-day", "large"), "acme", NOW) == second.charge.total
    assert used(database, counter.format("budget-day", "small"), "acme", NOW) == 2 * first.charge.total
    assert used(database, counter.format("requests-day", "small"), "acme", NOW) == 2
    assert used(database, counter.format("tokens-day", "large"), "acme", NOW) == TOKENS
    assert used(database, counter.format("tokens-day", "none"), "acme", NOW) == 0


def test_a_model_is_summed_from_the_partitions_of_its_window_alone(postgres_url: str, tmp_path: Path) -> None:
    """Another month's partitions are locked against everybody here; who wanted to read them would wait."""
    database, other = connect(postgres_url, deadline_seconds=2), connect(postgres_url)
    asked = event(attempt(1, model="small"), started_at=NOW)
    deliver(database, tmp_path, asked, event(attempt(1, model="small"), started_at=NOW - 40 * DAY))
    with transaction(other) as connection:
        connection.execute(text("LOCK TABLE usage_events_2026_10, attempts_2026_10 IN ACCESS EXCLUSIVE MODE"))
        for what in ("budget-month/2026-11", "budget-day/2026-11-21"):
            assert used(database, f"{what}/model:acme/small", "acme", NOW) == asked.charge
    database.close()
    other.close()


def test_open_holds_count_for_the_owners_they_know_and_for_the_counters_they_name(
    database: Database, tmp_path: Path
) -> None:
    tag, model, tokens = (
        "budget-day/2026-11-21/tag:acme/b", "budget-day/2026-11-21/model:acme/m", "tokens-day/2026-11-21/tenant:acme",
    )  # fmt: skip
    known = open_hold(project="web", end_user="bob", claims=((tag, 700), (model, 500), (tokens, 90)))
    deliver(database, tmp_path, known, open_hold(request_id="req_old", created_at=NOW - DAY))
    for scope in ("tenant:acme", "project:acme/web", "user:acme/bob", "key:key_1"):
        assert used(database, f"budget-day/2026-11-21/{scope}", "acme", NOW) == 777
        assert used(database, f"requests-day/2026-11-21/{scope}", "acme", NOW) == 1
    assert used(database, tag, "acme", NOW) == 700
    assert used(database, model, "acme", NOW) == 500
    assert used(database, tokens, "acme", NOW) == 90
    assert used(database, "budget-day/2026-11-21/user:acme/eve", "acme", NOW) == 0


def test_requests_of_a_model_and_steps_of_a_run_count_while_they_are_in_flight(
    database: Database, tmp_path: Path
) -> None:
    model, steps = "requests-day/2026-11-21/model:acme/small", "session-steps/3600/session:acme/run"
    claims = ((model, 1), (steps, 1), ("requests-day/2026-11-21/tenant:acme", 1))
    deliver(database, tmp_path, *(open_hold(request_id=f"req_{number}", claims=claims) for number in range(3)))
    assert used(database, model, "acme", NOW) == 3
    assert used(database, steps, "acme", NOW) == 3
    assert used(database, "requests-day/2026-11-21/tenant:acme", "acme", NOW) == 3


def test_a_hold_that_grows_by_claims_alone_is_kept_up_to_date(database: Database, tmp_path: Path) -> None:
    counter = "budget-day/2026-11-21/model:acme/m"
    first = open_hold()
    spool, deliverer = Spool.open(tmp_path), Deliverer(tmp_path, database)
    for taken in (500, 777):
        spool.hold(dataclasses.replace(first, claims=((counter, taken),)))
        deliverer.deliver_once()
    spool.close()
    deliverer.close()
    assert used(database, counter, "acme", NOW) == 777


def test_a_run_begins_anew_after_it_was_idle(database: Database, tmp_path: Path) -> None:
    events = [event(started_at=NOW - ago, session_id="run/1") for ago in (10, 500, 1100, 3000)]
    deliver(database, tmp_path, *events, event(started_at=NOW, session_id="other"))
    counter = "session-{}/700/session:acme/run/1"
    assert used(database, counter.format("money"), "acme", NOW) == 3 * events[0].charge
    assert used(database, counter.format("tokens"), "acme", NOW) == 3 * TOKENS
    assert used(database, counter.format("steps"), "acme", NOW) == 3
    assert used(database, counter.format("steps"), "acme", NOW + 1000) == 0
    held = open_hold(claims=((counter.format("money"), 44), (counter.format("tokens"), 5)))
    deliver(database, tmp_path, held)
    assert used(database, counter.format("money"), "acme", NOW) == 3 * events[0].charge + 44
    assert used(database, counter.format("tokens"), "acme", NOW) == 3 * TOKENS + 5
