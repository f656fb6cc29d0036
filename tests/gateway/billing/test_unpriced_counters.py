"""Counters that are rebuilt while calls wait for a price, and after these are rated: money is held, then charged, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.billing.counters.queries import used
from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from tests.gateway.billing.test_unpriced import CHARGE, MAXIMUM, NOON, USED, priced, rate, served, unpriced
from tests.invoicing import deliver
from tests.usage import attempt, hold_of

TOKENS = USED.input_total + USED.output_total


def counted(database: Database, what: str, shared: bool = True) -> int:
    return used(database, f"{what}-day/2026-10-05/tenant:acme", "acme", NOON.timestamp(), shared=shared)


def test_what_waits_counts_its_maximum_and_its_tokens_and_its_request_once(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, served(session_id="run"))
    assert (counted(database, "budget"), counted(database, "tokens"), counted(database, "requests")) == (
        MAXIMUM,
        TOKENS,
        1,
    )
    at = NOON + timedelta(hours=1)
    priced(database, 3, 15, at)
    assert rate(database, at).calls == 1
    assert (counted(database, "tokens"), counted(database, "requests")) == (TOKENS, 1)
    assert counted(database, "budget", shared=False) == CHARGE
    assert counted(database, "budget") == MAXIMUM, "a job will correct shared counters"


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_what_tags_models_and_runs_hold_for_a_price_is_known_however_it_was_delivered(
    database: Database, tmp_path: Path, together: bool
) -> None:
    priced_call = attempt(1, model="other", started_at=NOON.timestamp())
    asked = served(priced_call, unpriced(number=2), hold=2 * MAXIMUM, session_id="run", tags=("batch",))
    expected = {
        "budget-lifetime/ever/tenant:acme": asked.charge + MAXIMUM,
        "budget-lifetime/ever/tag:acme/batch": asked.charge + MAXIMUM,
        "budget-lifetime/ever/model:acme/new": MAXIMUM,
        "budget-lifetime/ever/model:acme/other": asked.charge,
        "session-money/3600/session:acme/run": asked.charge + MAXIMUM,
        "tokens-day/2026-10-05/tag:acme/batch": TOKENS + 155,
        "requests-day/2026-10-05/model:acme/new": 1,
    }
    spool = Spool.open(tmp_path)
    deliverer = Deliverer(tmp_path, database)
    for amount in (MAXIMUM, 2 * MAXIMUM):  # raised for the second call
        claims = tuple((counter, amount) for counter in expected)
        spool.hold(hold_of(asked, amount=amount, claims=claims))
        if not together:
            deliverer.deliver_once()
    spool.settle(asked)
    deliverer.deliver_once()
    deliverer.close()
    spool.close()
    assert {counter: used(database, counter, "acme", NOON.timestamp()) for counter in expected} == expected
