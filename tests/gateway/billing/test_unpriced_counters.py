"""Counters that are rebuilt while calls wait for a price, and after these are rated: money is held, then charged, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from gateway.billing.counters.queries import used
from gateway.db.connect import Database
from tests.gateway.billing.test_unpriced import CHARGE, MAXIMUM, NOON, USED, priced, rate, served
from tests.invoicing import deliver

TOKENS = USED.input_total + USED.output_total


def counted(database: Database, what: str) -> int:
    return used(database, f"{what}-day/2026-10-05/tenant:acme", "acme", NOON.timestamp(), shared=True)


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
    assert (counted(database, "budget"), counted(database, "tokens"), counted(database, "requests")) == (
        CHARGE,
        TOKENS,
        1,
    )
