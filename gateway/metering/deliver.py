"""Brings the spool to SQL in a process of its own: batches, each one transaction with its checkpoints; nothing counts twice.

When the database does not answer, delivery waits and tries again; the spool keeps everything. A line that is corrupt, or
whose data the database refuses, becomes a dead letter; any other error ends the process and leaves the spool as it is. A
hold whose process died is closed: hold released, a usage row with outcome `interrupted` and no charge.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from gateway.billing.ledger import post
from gateway.db.connect import Database, connect
from gateway.db.outbox import USAGE, send_later
from gateway.db.transaction import transaction
from gateway.errors import Unavailable
from gateway.garbage import keep_what_is_loaded
from gateway.labels.queries import keep_feedback
from gateway.labels.shadows.queries import keep_shadows
from gateway.metering import queries
from gateway.metering.dead import reason_of, without_texts
from gateway.metering.folder import keep_for_one
from gateway.metering.interrupted import interrupted_event
from gateway.metering.publish import metered
from gateway.metering.records import decode
from gateway.metering.segments import Line, Segment, list_segments, read_lines, writer_lives
from gateway.types import Hold, UsageEvent
from gateway.verdicts import Feedback, Shadow

BATCH = 4000
BATCH_BYTES = 8 * 1024 * 1024
"""A batch ends with the record that reaches either: transactions stay short and memory flat."""
POLL_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
OVERDUE_SECONDS = 60.0
"""An open hold that ended this long ago is closed even if its writer lives; should it settle later, the settle wins."""
OVERDUE_EVERY_SECONDS = 5.0
LOCK_SECONDS = 10.0
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivered:
    """What one pass did. `events` counts usage rows added, `known` records that SQL had already."""

    records: int = 0
    events: int = 0
    known: int = 0
    interrupted: int = 0
    dead_letters: int = 0
    torn: int = 0
    segments_removed: int = 0


@dataclass(slots=True)
class _Batch:
    """Lines of several segments that go to SQL together, and how far each segment is delivered then."""

    lines: list[tuple[Segment, Line]] = field(default_factory=list)
    delivered: dict[str, int] = field(default_factory=dict)


class Deliverer:
    """Delivers one spool folder. Only one may do so at a time; raises StartupError when another one keeps the folder.

    `lock_seconds` is how long to wait for the other one to finish. With `publish`, finished requests go to the outbox too.
    """

    def __init__(
        self, folder: Path, database: Database, *, publish: bool = False, lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._folder = folder
        self._publish = publish
        self._database = database
        self._lock = keep_for_one(folder, lock_seconds)
        self._delivered: dict[str, int] | None = None
        self._overdue_at = 0.0

    def close(self) -> None:
        """Let another deliverer have the folder."""
        os.close(self._lock)

    def deliver_once(self) -> Delivered:
        """Deliver everything that is in the spool now, close what dead processes left open, remove what is done.

        Raises Unavailable when the database does not answer; what was not delivered stays in the spool.
        """
        done = Delivered()
        if self._delivered is None:
            with transaction(self._database) as connection:
                self._delivered = queries.read_checkpoints(connection)
        segments = list_segments(self._folder)
        # Asked before reading: whatever a dead writer wrote is then read completely.
        living = {writer for writer in {s.writer for s in segments} if writer_lives(self._folder, writer)}
        while (batch := self._collect(segments)).lines:
            self._deliver(batch, done)
        finished = [s for s in segments if s.sealed or s.writer not in living]
        self._close_abandoned({s.writer for s in finished} - living, done)
        self._remove(finished, living, done)
        return done

    def run(self, stop: threading.Event, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Deliver until `stop` is set, then once more. Database failures are waited out with growing pauses."""
        pause = poll_seconds
        while True:
            last = stop.is_set()
            try:
                self.deliver_once()
                pause = poll_seconds
            except Unavailable as error:
                pause = min(LONGEST_PAUSE_SECONDS, max(pause * 2, 0.5))
                logger.warning("usage stays in the spool: %s", error.message)
            if last:
                return
            stop.wait(pause)

    def _collect(self, segments: Sequence[Segment]) -> _Batch:
        assert self._delivered is not None
        batch, size = _Batch(), 0
        for segment in segments:
            start = offset = self._delivered.get(segment.name, 0)
            while len(batch.lines) < BATCH and size + offset - start < BATCH_BYTES:
                lines, _ = read_lines(segment.path, offset, BATCH - len(batch.lines))
                if not lines:
                    break
                batch.lines += [(segment, line) for line in lines]
                offset = batch.delivered[segment.name] = lines[-1].end
            size += offset - start
        return batch

    def _deliver(self, batch: _Batch, done: Delivered) -> None:
        """One transaction; if the database refuses the data, each line by itself, so that only the bad one is set aside."""
        assert self._delivered is not None
        try:
            counts = self._write(batch)
        except queries.REFUSED as error:
            if len(batch.lines) > 1:
                for segment, line in batch.lines:
                    self._deliver(_Batch([(segment, line)], {segment.name: line.end}), done)
                return
            reason = reason_of(error)
            logger.error("a record cannot be delivered and becomes a dead letter: %s", reason)
            counts = self._write(batch, refused=reason)
        self._delivered.update(batch.delivered)
        done.records += len(batch.lines)
        done.events += counts.events
        done.known += counts.known
        done.dead_letters += counts.dead_letters

    def _write(self, batch: _Batch, refused: str | None = None) -> Delivered:
        now, counts = time.time(), Delivered()
        holds: dict[str, tuple[str, Hold]] = {}
        events: dict[str, tuple[str, UsageEvent]] = {}
        feedback: list[Feedback] = []
        shadows: list[Shadow] = []
        corrupt: list[tuple[Segment, Line, str]] = []
        for segment, line in batch.lines:
            try:
                record = decode(line.text)
            except ValueError as error:
                corrupt.append((segment, line, str(error)))
                continue
            if refused is not None:
                corrupt.append((segment, line, refused))
            elif isinstance(record, Hold):
                known = holds.get(record.request_id)
                if known is None or known[1].amount <= record.amount:
                    holds[record.request_id] = (segment.writer, record)
            elif isinstance(record, Feedback):
                feedback.append(record)
            elif isinstance(record, Shadow):
                shadows.append(record)
            elif record.request_id not in events:
                events[record.request_id] = (segment.writer, record)
            else:
                counts.known += 1
        with transaction(self._database) as connection:
            opened = [pair for name, pair in holds.items() if name not in events or events[name][1].reserved]
            queries.write_holds(connection, opened, now)
            if events:
                counts.events = self._write_events(connection, events, now)
                counts.known += len(events) - counts.events
            if feedback or shadows:
                keep_feedback(connection, feedback)
                keep_shadows(connection, shadows)
            for segment, line, reason in corrupt:
                queries.bury(connection, segment.name, line.position, without_texts(line.text), reason, now)
            queries.write_checkpoints(connection, batch.delivered, now)
        counts.dead_letters = len(corrupt)
        return counts

    def _write_events(self, connection: Connection, events: Mapping[str, tuple[str, UsageEvent]], now: float) -> int:
        """Everything about finished requests that SQL does not know; how many those are. The ledger says what it knows."""
        queries.open_months(connection, {event.started_at for _, event in events.values()})
        held = queries.lock_holds(connection, list(events))
        unknown = post(connection, [event for _, event in events.values()], now)
        new = [pair for name, pair in events.items() if name in unknown]
        released = [hold for state, hold in held.values() if state == "released" and hold.request_id in unknown]
        queries.settle_holds(connection, new, held, now)
        if self._publish:
            send_later(connection, USAGE, [metered(event) for _, event in new], now)
        # The roll-ups come last: every deliverer waits for their rows.
        taken_back = queries.take_back_interruptions(connection, released)
        queries.insert_usage(connection, [event for _, event in new], taken_back)
        return len(new)

    def _close_abandoned(self, dead: set[str], done: Delivered) -> None:
        """Close holds that nobody will settle: their writer is gone and fully read, or they are long overdue."""
        now = time.time()
        for writer in dead:
            done.interrupted += self._interrupt(now, writer=writer)
        if now - self._overdue_at > OVERDUE_EVERY_SECONDS:
            done.interrupted += self._interrupt(now, ended_before=now - OVERDUE_SECONDS)
            self._overdue_at = now

    def _interrupt(self, now: float, *, writer: str | None = None, ended_before: float | None = None) -> int:
        closed = 0
        while True:
            with transaction(self._database) as connection:
                holds = queries.abandoned_holds(connection, writer=writer, ended_before=ended_before, at_most=BATCH)
                if not holds:
                    return closed
                names = [hold.request_id for hold in holds]
                known = queries.known_requests(connection, names)
                queries.insert_usage(
                    connection, [interrupted_event(hold, now) for hold in holds if hold.request_id not in known]
                )
                queries.release_holds(connection, names, now)
            closed += len(holds)
            logger.warning("%d requests were interrupted; their holds are released without a charge", len(holds))

    def _remove(self, finished: Sequence[Segment], living: set[str], done: Delivered) -> None:
        """Delete segments that SQL has completely, and the locks of writers that are gone."""
        assert self._delivered is not None
        for segment in finished:
            _, rest = read_lines(segment.path, self._delivered.get(segment.name, 0), 1)
            if rest:
                done.torn += 1
                logger.warning("%s ends in %d bytes of a record that was never completed", segment.name, rest)
            segment.path.unlink(missing_ok=True)
            if segment.writer not in living and not any(self._folder.glob(f"{segment.writer}.*.spool")):
                (self._folder / f"{segment.writer}.lock").unlink(missing_ok=True)
            done.segments_removed += 1
        if finished:
            with transaction(self._database) as connection:
                queries.forget_checkpoints(connection, [segment.name for segment in finished])
            for segment in finished:
                self._delivered.pop(segment.name, None)


def run_deliverer(folder: Path, database_url: str, *, publish: bool = False) -> None:
    """Deliver until SIGTERM or SIGINT, or until the parent process is gone; then once more what is left."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    parent = os.getppid()
    keep_what_is_loaded(look_after=200_000)
    database = connect(database_url)
    deliverer = Deliverer(folder, database, publish=publish)
    try:
        threading.Thread(target=_stop_without, args=(parent, stop), daemon=True).start()
        deliverer.run(stop)
    finally:
        deliverer.close()
        database.close()


def _stop_without(parent: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if os.getppid() != parent:
            stop.set()
