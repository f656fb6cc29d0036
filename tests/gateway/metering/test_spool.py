"""The spool on real files: what survives a killed process, a full disk and a full segment."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.errors import StartupError, Unavailable
from gateway.metering.records import encode as spool_line
from gateway.metering.segments import list_segments, read_lines, records_about, undelivered_records, writer_lives
from gateway.metering.spool import SYNC_SECONDS, Spool
from gateway.types import Hold
from tests.usage import event, hold_of

WRITER = """
import sys
from pathlib import Path
from tests.usage import event, hold_of
from gateway.metering.spool import Spool
spool = Spool.open(Path(sys.argv[1]))
number = 0
while True:
    finished = event(request_id=f"req_{number}")
    spool.hold(hold_of(finished))
    spool.settle(finished)
    print(number, flush=True)
    number += 1
"""


def test_records_are_on_file_as_soon_as_the_call_returns(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    finished = event()
    hold = hold_of(finished)
    spool.hold(hold)
    spool.settle(finished)
    assert list(undelivered_records(tmp_path, {})) == [hold, finished]
    spool.close()


def test_a_killed_writer_loses_no_record_it_had_written(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        written += [int(line) for line in process.stdout]
    settled = [record.request_id for record in undelivered_records(tmp_path, {}) if not isinstance(record, Hold)]
    assert settled[: len(written)] == [f"req_{number}" for number in written]
    [segment] = list_segments(tmp_path)
    assert not writer_lives(tmp_path, segment.writer)


def test_a_writer_is_known_to_live_until_it_closes(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    assert writer_lives(tmp_path, spool.writer)
    spool.close()
    assert not writer_lives(tmp_path, spool.writer)


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, segment_bytes=5000)
    events = [event() for _ in range(10)]
    for finished in events:
        spool.settle(finished)
    segments = list_segments(tmp_path)
    assert len(segments) > 2
    assert [segment.sealed for segment in segments] == [True] * (len(segments) - 1) + [False]
    assert list(undelivered_records(tmp_path, {})) == events
    spool.close()


def test_a_record_larger_than_a_segment_is_written_whole(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, segment_bytes=1000)
    finished = event(explanation={"text": "x" * 3_000_000})
    spool.settle(finished)
    assert list(undelivered_records(tmp_path, {})) == [finished]
    spool.close()


def test_a_torn_end_is_told_apart_from_whole_lines(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.settle(event())
    spool.close()
    [segment] = list_segments(tmp_path)
    with segment.path.open("ab") as file:
        file.write(b'S 12345678 {"request_id": "half')
    lines, rest = read_lines(segment.path, 0, 10)
    assert len(lines) == 1
    assert rest == 31


def test_a_disk_without_room_refuses_holds_keeps_settles_and_recovers(tmp_path: Path) -> None:
    """The limit on file size stands in for a full disk: the kernel refuses the write in the same way, half-way through."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    spool = Spool.open(tmp_path)
    try:
        first, late = event(), event()
        spool.settle(first)
        written = list_segments(tmp_path)[0].path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + 100, before[1]))
        with pytest.raises(Unavailable, match="no request is accepted unmetered"):
            spool.hold(hold_of(late))
        spool.settle(late)
        assert list(undelivered_records(tmp_path, {})) == [first]
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        spool.sync()
        assert list(undelivered_records(tmp_path, {})) == [first, late]
        spool.hold(hold_of(late))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        spool.close()


def test_a_folder_that_cannot_be_made_stops_the_start_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartupError, match="PENSTOCK_DATA_DIR"):
        Spool.open(tmp_path / "file" / "spool")


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.close()
    spool.close()
    assert os.listdir(tmp_path)


def test_a_segment_with_something_in_it_is_ended_after_a_while_and_an_empty_one_is_not(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, segment_seconds=0.0)
    first, second = event(), event()
    deadline = time.monotonic() + 60
    for number, finished in enumerate((first, second), 1):
        spool.settle(finished)
        while len(segments := list_segments(tmp_path)) <= number:
            assert time.monotonic() < deadline, segments
            time.sleep(0.01)
    time.sleep(4 * SYNC_SECONDS)
    assert [segment.sealed for segment in list_segments(tmp_path)] == [True, True, False]
    assert list(undelivered_records(tmp_path, {})) == [first, second]
    spool.close()


def test_who_looks_again_for_a_word_reads_only_what_is_new(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, segment_bytes=2_000)
    wanted = event(request_id="req_wanted")
    read: dict[str, int] = {}

    def look() -> list[str]:
        return [record.request_id for record in records_about(tmp_path, read, b"req_wanted")]

    for _ in range(5):
        spool.settle(event())
    assert look() == []
    sizes = {segment.name: segment.path.stat().st_size for segment in list_segments(tmp_path)}
    assert (read, len(sizes) > 1) == (sizes, True)
    for segment in list_segments(tmp_path):  # whoever read this part again would find it
        content = segment.path.read_bytes()
        segment.path.write_bytes(spool_line(wanted) + content[len(spool_line(wanted)) :])
    assert look() == []
    spool.hold(hold_of(wanted))
    spool.settle(wanted)
    assert look() == ["req_wanted", "req_wanted"]
    assert look() == []
    spool.close()
