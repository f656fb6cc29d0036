"""Roll-ups say exactly what the requests say: for any period and grouping, after interruptions, repetitions and rebuilding."""

from __future__ import annotations

import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import verify
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.metering.deliver import Deliverer
from gateway.metering.rebuild import rebuild_month
from gateway.metering.records import encode
from gateway.reports.usage.parts import Part, parts
from gateway.reports.usage.queries import GROUPS, in_rollups
from gateway.reports.usage.report import sum_up, usage_report
from gateway.types import Attempt, Usage, UsageEvent
from tests.usage import attempt, event, hold_of

BEGIN = datetime(2026, 9, 29, 20, tzinfo=UTC)
END = datetime(2026, 10, 2, 5, tzinfo=UTC)
moments = st.integers(0, int((END - BEGIN).total_seconds() * 4)).map(
    lambda quarters: BEGIN + timedelta(seconds=quarters / 4)
)
ragged = moments | moments.map(lambda moment: moment.replace(minute=0, second=0, microsecond=0)) | st.none()
usages = st.builds(
    Usage, input=st.integers(0, 10**6), reasoning=st.integers(0, 10**6), gpu_seconds=st.integers(0, 10**6),
    estimated=st.booleans(),
)  # fmt: skip
names = st.sampled_from(["a", "b"])
calls = st.builds(lambda usage, model, provider: (usage, model, provider), usages, names, names)


def made(when: datetime, attempts: list[tuple[Usage, str, str]], **fields: object) -> UsageEvent:
    several: list[Attempt] = [
        attempt(number, usage, model=model, provider=provider, started_at=when.timestamp() + number)
        for number, (usage, model, provider) in enumerate(attempts, 1)
    ]
    finished = event(started_at=when.timestamp(), finished_at=when.timestamp() + 9, **fields)
    return UsageEvent(**{**{name: getattr(finished, name) for name in finished.__slots__}, "attempts": tuple(several)})


events = st.builds(
    made, moments, st.lists(calls, max_size=4), tenant=names, key_name=names, project=names | st.none(),
    tier=st.sampled_from(["economy", None]), outcome=st.sampled_from(["completed", "failed"]),
    end_user=names | st.none(), session_id=names | st.none(), requested_model=st.text(max_size=3),
    tags=st.lists(names, max_size=3).map(tuple),
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(events, min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
    st.lists(st.tuples(ragged, ragged, st.sets(st.sampled_from(GROUPS), max_size=4)), min_size=4, max_size=8),
)
def test_both_ways_to_read_give_equal_reports(
    requests: list[UsageEvent],
    interrupted: set[int],
    questions: list[tuple[datetime | None, datetime | None, set[str]]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        first = [encode(hold_of(each)) for number, each in enumerate(requests) if number in interrupted]
        for number, lines in enumerate((first, [encode(each) for each in requests], [encode(requests[0])])):
            spool = folder / "spool"
            spool.mkdir(exist_ok=True)
            (spool / f"{number:017d}-1-ab.000001.spool").write_bytes(b"".join(lines))
            deliverer = Deliverer(spool, database)
            deliverer.deliver_once()
            deliverer.close()
        for rebuilt in (False, True):
            if rebuilt:
                for month in (9, 10):
                    rebuild_month(database, datetime(2026, month, 1, tzinfo=UTC))
            checked = verify(database, folder / "spool")
            assert checked.ok, checked.problems
            for since, until, groups in questions:
                group_by = sorted(groups)
                asked = usage_report(database, since, until, group_by)
                assert asked == sum_up(database, since, until, group_by, [Part("rows", since, until)])
        database.close()


@given(ragged, ragged, st.booleans())
def test_pieces_of_a_period_touch_and_cover_it(since: datetime | None, until: datetime | None, hourly: bool) -> None:
    if since is not None and until is not None and since > until:
        since, until = until, since
    pieces = parts(since, until, hourly=hourly)
    assert (pieces[0].since, pieces[-1].until) == (since, until)
    for one, other in itertools.pairwise(pieces):
        assert one.until == other.since is not None
    for piece in pieces:
        if piece.source != "rows":
            whole = [moment for moment in (piece.since, piece.until) if moment is not None]
            assert all((m.minute, m.second, m.microsecond) == (0, 0, 0) for m in whole)
            assert piece.source == "hours" or all(m.hour == 0 for m in whole)
    assert not hourly or all(piece.source != "days" for piece in pieces)


def test_what_only_rows_know_is_not_asked_of_roll_ups() -> None:
    assert in_rollups(("tenant", "model", "day", "outcome", "project"))
    assert not any(in_rollups((name,)) for name in ("session", "user", "requested_model", "tag"))
