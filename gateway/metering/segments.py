"""Reading the spool: which segments there are, whose writer still lives, and the whole lines after an offset (read-only)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.metering.records import CorruptRecord, Record, decode

READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a writer. `sealed`: the writer has gone on to its next segment and never comes back to this one."""

    path: Path
    writer: str
    sealed: bool

    @property
    def name(self) -> str:
        """Its name in checkpoints; unique over machines and time."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line of a segment and where it starts."""

    position: int
    text: bytes

    @property
    def end(self) -> int:
        """Where the next line starts."""
        return self.position + len(self.text)


def list_segments(folder: Path) -> list[Segment]:
    """All segments, oldest writer first and each writer's in order."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".spool"))
    except FileNotFoundError:
        return []
    writers = [name.split(".")[0] for name in names]
    return [
        Segment(folder / name, writer, sealed=writer in writers[index + 1 : index + 2])
        for index, (name, writer) in enumerate(zip(names, writers, strict=True))
    ]


def writer_lives(folder: Path, writer: str) -> bool:
    """Whether the process that opened this writer still has it open."""
    try:
        lock = os.open(folder / f"{writer}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def read_lines(path: Path, offset: int, at_most: int) -> tuple[list[Line], int]:
    """Up to `at_most` whole lines from `offset`, and how many bytes without a line feed follow them (a torn end, or a line
    that is just being written). A file that is gone has no lines.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(READ_BYTES)
            while data and b"\n" not in data and (more := file.read(READ_BYTES)):
                data += more
            complete = len(data) < READ_BYTES or not file.read(1)
    except FileNotFoundError:
        return [], 0
    lines: list[Line] = []
    start = 0
    while len(lines) < at_most and (feed := data.find(b"\n", start)) >= 0:
        lines.append(Line(offset + start, data[start : feed + 1]))
        start = feed + 1
    rest = len(data) - start if complete and data.find(b"\n", start) < 0 else 0
    return lines, rest


def undelivered_records(folder: Path, delivered: Mapping[str, int]) -> Iterator[Record]:
    """Every record behind the checkpoints; corrupt lines are left to the deliverer."""
    for segment in list_segments(folder):
        offset = delivered.get(segment.name, 0)
        while lines := read_lines(segment.path, offset, 1000)[0]:
            for line in lines:
                try:
                    yield decode(line.text)
                except CorruptRecord:
                    continue
            offset = lines[-1].end


def records_about(folder: Path, read: dict[str, int], word: bytes) -> Iterator[Record]:
    """The records whose line has this word, behind how far each segment has been `read`, which moves on with them: who comes
    again with the same `read` sees only what is new. Much quicker than reading all of them.
    """
    for segment in list_segments(folder):
        while lines := read_lines(segment.path, read.get(segment.name, 0), 10_000)[0]:
            for line in lines:
                read[segment.name] = line.end
                if word in line.text:
                    with suppress(CorruptRecord):
                        yield decode(line.text)
