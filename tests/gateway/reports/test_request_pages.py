"""Pages of requests with filters: every request that fits, once, newest first, the same on both databases."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.db.connect import Database
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.reports.requests.queries import RequestFilter, page_of_requests
from gateway.types import UsageEvent
from tests.usage import attempt, event

BEGIN = datetime(2026, 10, 30, tzinfo=UTC)
SECONDS = 4 * 86_400


def drawn(number: int) -> list[UsageEvent]:
    """Requests over four days and two months, some at the same moment, some without attempts."""
    draw, made = random.Random(3), []
    for _ in range(number):
        model = draw.choice(["small", "large", None])
        started = BEGIN.timestamp() + draw.randrange(SECONDS // 60) * 60
        made.append(
            replace(
                event(attempt(1, model=model or "small"), started_at=started, finished_at=started + 1),
                attempts=() if model is None and draw.random() < 0.5 else (attempt(1, model=model or "small"),),
                tenant=draw.choice(["a", "a", "b"]), project=draw.choice(["p", None]), key_id=draw.choice(["k1", "k2"]),
                model=model, outcome=draw.choice(["completed", "completed", "failed", "cut"]),
                end_user=draw.choice(["u", None]), session_id=draw.choice(["s", None]),
                tags=draw.choice([("x",), ("x", "y"), ()]),
            )
        )  # fmt: skip
    return made


def fits(finished: UsageEvent, wanted: RequestFilter) -> bool:
    given = {"key": finished.key_id, "user": finished.end_user, "session": finished.session_id}
    started = datetime.fromtimestamp(finished.started_at, UTC)
    for field in fields(wanted):
        value: Any = getattr(wanted, field.name)
        if value is None:
            continue
        if field.name == "tag":
            right = value in finished.tags
        elif field.name in ("since", "until"):
            right = started >= value if field.name == "since" else started < value
        else:
            right = given.get(field.name, getattr(finished, field.name, None)) == value
        if not right:
            return False
    return True


FILTERS = [
    RequestFilter(),
    RequestFilter(tenant="a"),
    RequestFilter(key="k2"),
    RequestFilter(model="large"),
    RequestFilter(outcome="cut"),
    RequestFilter(user="u"),
    RequestFilter(session="s", tag="y"),
    RequestFilter(tenant="b", model="small"),
    RequestFilter(tenant="b", outcome="failed", key="k1", project="p"),
    RequestFilter(tenant="a", model="large", outcome="completed", tag="x"),
    RequestFilter(tenant="nobody", model="large"),
    RequestFilter(since=datetime(2026, 10, 31, 12, tzinfo=UTC), until=datetime(2026, 11, 1, 0, 30, tzinfo=UTC)),
    RequestFilter(tenant="a", key="k1", since=datetime(2026, 10, 31, 12, 10, tzinfo=UTC)),
    RequestFilter(tenant="a", key="k1", until=datetime(2026, 11, 1, 7, 10, tzinfo=UTC)),
]


def test_every_filter_shows_what_fits_once_newest_first(database: Database, tmp_path: Path) -> None:
    events = drawn(300)
    spool = Spool.open(tmp_path)
    for finished in events:
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(tmp_path, database)
    deliverer.deliver_once()
    deliverer.close()
    newest_first = sorted(events, key=lambda one: (one.started_at, one.request_id), reverse=True)
    for wanted in FILTERS:
        expected = [finished.request_id for finished in newest_first if fits(finished, wanted)]
        seen: list[str] = []
        cursor = None
        while True:
            page = page_of_requests(database, 9, cursor, wanted)
            seen += [request["request_id"] for request in page.requests]
            cursor = page.next
            if cursor is None:
                break
        assert seen == expected, wanted
    assert sum(fits(finished, wanted) for finished in events for wanted in FILTERS) > 300


@pytest.mark.parametrize("cursor", ["2026-01-01/x", "nothing"])
def test_a_cursor_that_no_page_gave_is_refused_with_filters_too(database: Database, cursor: str) -> None:
    with pytest.raises(ValueError, match="is not the `next` of a page"):
        page_of_requests(database, 4, cursor, RequestFilter(tenant="a", model="b"))
