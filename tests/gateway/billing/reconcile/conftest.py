"""Books of a September in random order, for every test of reconciliation runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.db.connect import Database
from tests.month import deliver, requests
from tests.provider_bills import at


@pytest.fixture
def books(database: Database, tmp_path: Path) -> Database:
    """A month of 150 requests with every bucket, in random order, and some of the months beside it."""
    events = requests(150) + requests(4, seed=2, since=at("2026-08-31"), until=at("2026-09-01"))
    random.Random(3).shuffle(events)
    deliver(database, tmp_path / "spool", events)
    return database
