"""Several writers, read while they write, killed anywhere, copied and delivered again: every whole request counts once."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.ledger import verify
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.tables import usage_events
from gateway.db.transaction import snapshot
from gateway.metering.deliver import Deliverer
from gateway.metering.records import decode, encode
from gateway.types import PROCESS_DIED, Usage, UsageEvent
from tests.usage import attempt, event, hold_of

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
requests = st.builds(lambda count: event(attempt(1, Usage(input=count, reasoning=count // 2))), st.integers(1, 100_000))


@dataclass
class Writer:
    """One process's spool file: what it will have written, how much of it there is, and its lock while it lives."""

    path: Path
    content: bytes
    lock: int
    written: int = 0

    def write(self, size: int) -> None:
        """Append the next bytes; a `write` of a real process is whole lines, a crash of the machine may cut anywhere."""
        piece = self.content[self.written : self.written + size]
        with self.path.open("ab") as file:
            file.write(piece)
        self.written += len(piece)

    def die(self) -> None:
        """Let the lock go, as the end of a process does."""
        os.close(self.lock)
        self.lock = -1


def _writer(spool: Path, number: int, lines: list[bytes]) -> Writer:
    name = f"{number:017d}-{number}-ab"
    lock = os.open(spool / f"{name}.lock", os.O_WRONLY | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = spool / f"{name}.000001.spool"
    path.touch()
    return Writer(path, b"".join(lines), lock)


@SLOW
@given(st.lists(st.lists(requests, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_writers_that_are_read_while_they_write_and_die_anywhere(
    shares: list[list[UsageEvent]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, spool = Path(name), Path(name) / "spool"
        spool.mkdir()
        database = connect(f"sqlite:///{folder / 'test.db'}")
        migrate(database)
        writers = [
            _writer(spool, number, [line for each in share for line in (encode(hold_of(each)), encode(each))])
            for number, share in enumerate(shares, 1)
        ]
        try:
            _interleave(writers, spool, database, data)
            kept = {writer.path.name: writer.content[: writer.written] for writer in writers}
            for writer in writers:
                writer.die()
            _deliver(spool, database)
            _check(database, folder, kept)
            # The same files once more under other names, as after a crash before the checkpoint, or from a copied disk.
            for number in data.draw(st.permutations(range(len(writers)))):
                (spool / f"{90 + number:017d}-9-cd.000001.spool").write_bytes(kept[writers[number].path.name])
                if data.draw(st.booleans()):
                    _deliver(spool, database)
            _deliver(spool, database)
            _check(database, folder, kept)
            assert list(spool.glob("*.spool")) == []
        finally:
            for writer in writers:
                if writer.lock >= 0:
                    writer.die()
            database.close()


def _interleave(writers: list[Writer], spool: Path, database: Database, data: st.DataObject) -> None:
    """Bytes of the writers in any order, with deliveries and new deliverers between them."""
    for _ in range(data.draw(st.integers(1, 12))):
        writer = data.draw(st.sampled_from(writers))
        # Shares, because ids and times make the lines differ in length from run to run.
        writer.write(len(writer.content) * data.draw(st.integers(0, 100)) // 100)
        if data.draw(st.booleans()):
            _deliver(spool, database)


def _deliver(spool: Path, database: Database) -> None:
    deliverer = Deliverer(spool, database)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


def _check(database: Database, folder: Path, contents: dict[str, bytes]) -> None:
    """Whole records count, once each; a request of which only the hold is whole was interrupted; torn ends are nothing."""
    settled, begun = {}, set()
    for content in contents.values():
        for line in content.split(b"\n")[:-1]:
            record = decode(line)
            begun.add(record.request_id)
            if isinstance(record, UsageEvent):
                settled[record.request_id] = record
    with snapshot(database) as connection:
        rows = {row.request_id: row for row in connection.execute(usage_events.select())}
    assert rows.keys() == begun
    for request_id, row in rows.items():
        if request_id in settled:
            assert (row.charge_pico, row.reasoning) == (
                settled[request_id].charge,
                settled[request_id].attempts[0].usage.reasoning,
            )
        else:
            assert (row.error_code, row.charge_pico) == (PROCESS_DIED, 0)
    checked = verify(database, folder / "spool")
    assert checked.ok, checked.problems
    assert checked.charge_pico == sum(each.charge for each in settled.values())
    assert (checked.transactions, checked.open_holds, checked.dead_letters) == (len(settled), 0, 0)
