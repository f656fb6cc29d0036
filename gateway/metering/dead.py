"""What is kept of a record that cannot be delivered: everything that is about money, and no text that people wrote (pure)."""

from __future__ import annotations

from dataclasses import replace

from gateway.metering.records import CorruptRecord, decode, encode
from gateway.types import Hold
from gateway.verdicts import Feedback, Shadow

_SAID = (b'"given_at":', b'"shadow_request_id":')
"""Names that only stand in what is said of an answer, whatever else of the line is damaged."""
_START = 11
"""Bytes of kind and checksum."""


def without_texts(line: bytes) -> bytes:
    """A line of the spool without prompts, answers and comments; one that has none stays byte for byte.

    Of a damaged word on an answer only its beginning is left. A damaged request stays whole: what can be read in it says what
    to settle by hand.
    """
    try:
        record = decode(line)
    except CorruptRecord:
        if line[:2] in (b"F ", b"C ") or any(name in line for name in _SAID):
            return line[:_START] + b"(%d bytes that may hold texts are not kept)\n" % len(line)
        return line
    if isinstance(record, Feedback):
        return line if record.comment is None else encode(replace(record, comment=None))
    if isinstance(record, Shadow):
        if record.texts is None:
            return line
        status = "expired" if record.status == "waiting" else record.status
        return encode(replace(record, texts=None, status=status))
    if isinstance(record, Hold) or record.routing is None or record.routing.prompt is None:
        return line
    return encode(replace(record, routing=replace(record.routing, prompt=None)))


def reason_of(error: Exception) -> str:
    """Why a database refused a record, without the row that databases like to quote with it."""
    said = getattr(error, "orig", None) or error
    primary = getattr(getattr(said, "diag", None), "message_primary", None)
    return f"{type(error).__name__}: {primary or said}"[:1000]
