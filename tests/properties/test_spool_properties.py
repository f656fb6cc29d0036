"""The spool: delivered in any order, any number of times, cut anywhere, it counts every whole request exactly once."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import verify
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.tables import holds, usage_events
from gateway.db.transaction import snapshot
from gateway.metering.deliver import Deliverer
from gateway.metering.records import decode, encode
from gateway.types import PROCESS_DIED, Hold, Usage, UsageEvent
from tests.usage import attempt, event, hold_of

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
text = st.text(max_size=20)
events = st.builds(
    lambda usage, failed, **fields: event(
        *([attempt(1, Usage(), status="error")] * failed), attempt(failed + 1, usage), **fields
    ),
    st.builds(Usage, input=st.integers(0, 10**6), reasoning=st.integers(0, 10**6), estimated=st.booleans()),
    st.integers(0, 1),
    session_id=text | st.none(),
    requested_model=text,
    decision=text,
    tags=st.lists(text, max_size=2).map(tuple),
    difficulty=st.floats(0, 1) | st.none(),
    streamed=st.booleans(),
    explanation=st.dictionaries(text, text, max_size=2),
)


@given(events)
def test_every_record_is_read_back_as_it_was_written(finished: UsageEvent) -> None:
    assert decode(encode(finished)) == finished
    hold = hold_of(finished)
    assert decode(encode(hold)) == hold


@st.composite
def replays(draw: st.DrawFn) -> tuple[list[UsageEvent], set[str], list[list[bytes]]]:
    """Requests, those that were never settled, and rounds of their lines in any order with repetitions."""
    requests = draw(st.lists(events, min_size=1, max_size=6))
    unsettled = {finished.request_id for finished in requests if draw(st.integers(0, 3)) == 0}
    lines = [encode(hold_of(finished)) for finished in requests]
    lines += [encode(finished) for finished in requests if finished.request_id not in unsettled]
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        repeated = lines + draw(st.lists(st.sampled_from(lines), max_size=5))
        rounds.append(draw(st.permutations(repeated)))
    # Rounds see parts of it only, but every line is in one of them.
    parts = [draw(st.lists(st.sampled_from(lines), max_size=len(lines))) for _ in range(draw(st.integers(0, 3)))]
    return requests, unsettled, parts + rounds


@SLOW
@given(replays())
def test_replayed_in_any_order_and_number_every_request_counts_once(
    case: tuple[list[UsageEvent], set[str], list[list[bytes]]],
) -> None:
    requests, unsettled, rounds = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        for number, lines in enumerate(rounds):
            _deliver_file(database, folder, f"{number:017d}-1-ab.000001.spool", b"".join(lines))
        settled = [finished for finished in requests if finished.request_id not in unsettled]
        checked = verify(database, folder / "spool")
        assert checked.ok, checked.problems
        assert (checked.usage_events, checked.transactions) == (len(requests), len(settled))
        assert checked.charge_pico == sum(finished.charge for finished in settled)
        states = _states(database)
        assert states == {
            finished.request_id: ("released", PROCESS_DIED, finished.hold)
            if finished.request_id in unsettled
            else ("settled", None, finished.hold)
            for finished in requests
        }
        database.close()


@SLOW
@given(st.lists(events, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_spool_cut_at_any_byte_delivers_its_whole_records_and_drops_the_torn_one(
    requests: list[UsageEvent], chance: random.Random
) -> None:
    lines = [line for finished in requests for line in (encode(hold_of(finished)), encode(finished))]
    content = b"".join(lines)
    cut = chance.randrange(len(content) + 1)
    whole = [decode(line) for line in content[:cut].split(b"\n")[:-1]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        done = _deliver_file(database, folder, "0-1-ab.000001.spool", content[:cut])
        settled = [record for record in whole if not isinstance(record, Hold)]
        begun = {record.request_id for record in whole}
        assert (done.events, done.dead_letters) == (len(settled), 0)
        assert done.torn == (0 if content[:cut].endswith(b"\n") or cut == 0 else 1)
        assert done.interrupted == len(begun) - len(settled)
        checked = verify(database, folder / "spool")
        assert checked.ok, checked.problems
        assert checked.charge_pico == sum(record.charge for record in settled)
        database.close()


def _deliver_file(database: Database, folder: Path, name: str, content: bytes):  # type: ignore[no-untyped-def]
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    (spool / name).write_bytes(content)
    deliverer = Deliverer(spool, database)
    try:
        return deliverer.deliver_once()
    finally:
        deliverer.close()


def _states(database: Database) -> dict[str, tuple[str, str | None, int]]:
    query = holds.join(usage_events, usage_events.c.request_id == holds.c.request_id).select()
    with snapshot(database) as connection:
        return {row.request_id: (row.state, row.error_code, row.amount_pico) for row in connection.execute(query)}
