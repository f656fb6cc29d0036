r"""How holds and usage events lie in the spool: one checkable line per record (pure).

A line is `KIND CRC JSON\n`: kind `H` (hold) or `S` (settle), CRC-32 of kind and JSON in eight hex digits, JSON without
line breaks. A last line without its line feed was torn by a crash; a whole line that fails its check is corrupt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal
from zlib import crc32

import orjson

from gateway.types import Attempt, Hold, Rated, RatedLine, Usage, UsageEvent

Kind = Literal["H", "S"]


class CorruptRecord(ValueError):
    """A whole line that is not a record; it belongs among the dead letters."""


def encode(record: Hold | UsageEvent) -> bytes:
    """The line of a record, line feed included. Money is written even if the explanation cannot be."""
    kind = b"H " if isinstance(record, Hold) else b"S "
    try:
        text = orjson.dumps(record, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Text that is not valid Unicode, or a number beyond 64 bits, in what only explains the amounts.
        text = orjson.dumps(_without_free_text(record))
    return b"%b%08x %b\n" % (kind, crc32(text, crc32(kind)), text)


def decode(line: bytes) -> Hold | UsageEvent:
    """The record of a whole line (without or with its line feed). Raises CorruptRecord that says what is wrong."""
    line = line.rstrip(b"\n")
    kind, checksum, text = line[:2], line[2:10], line[11:]
    if kind not in (b"H ", b"S ") or line[10:11] != b" ":
        raise CorruptRecord("the line does not start like a record")
    if checksum != b"%08x" % crc32(text, crc32(kind)):
        raise CorruptRecord("the checksum does not match")
    try:
        fields = orjson.loads(text)
        return Hold(**fields) if kind == b"H " else _event(fields)
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptRecord(f"the fields do not make a record: {error}") from error


def _event(fields: dict[str, Any]) -> UsageEvent:
    attempts = tuple(
        Attempt(**{
            **attempt,
            "usage": Usage(**attempt["usage"]),
            "cost": _rated(attempt["cost"]),
            "charge": _rated(attempt["charge"]),
        })
        for attempt in fields.pop("attempts")
    )  # fmt: skip
    return UsageEvent(**{**fields, "tags": tuple(fields["tags"]), "attempts": attempts})


def _rated(fields: dict[str, Any]) -> Rated:
    return Rated(tuple(RatedLine(**line) for line in fields["lines"]), fields["total"])


def _without_free_text(record: Hold | UsageEvent) -> Hold | UsageEvent:
    if isinstance(record, Hold):
        return replace(record, key_name=_plain(record.key_name), requested_model=_plain(record.requested_model))
    return replace(
        record,
        session_id=_plain(record.session_id) if record.session_id is not None else None,
        tags=tuple(_plain(tag) for tag in record.tags),
        requested_model=_plain(record.requested_model),
        key_name=_plain(record.key_name),
        decision=_plain(record.decision),
        error_code=_plain(record.error_code) if record.error_code is not None else None,
        explanation={},
        attempts=tuple(replace(attempt, raw_usage=None) for attempt in record.attempts),
    )


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
