r"""How holds, usage events and what is said of answers lie in the spool: one checkable line per record (pure).

A line is `KIND CRC JSON\n`: kind `H` (hold), `S` (settle), `F` (feedback) or `C` (comparison with another tier's answer),
CRC-32 of kind and JSON in eight hex digits, JSON without line breaks. A last line without its line feed was torn by a crash;
a whole line that fails its check is corrupt.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from math import inf
from operator import attrgetter
from typing import Any
from zlib import crc32

import orjson

from gateway.energy import Energy
from gateway.routed import RoutingRecord
from gateway.types import Attempt, Hold, Rated, RatedLine, Usage, UsageEvent
from gateway.verdicts import Feedback, Label, Shadow, Texts

Record = Hold | UsageEvent | Feedback | Shadow
_SAID: tuple[tuple[bytes, type[Any]], ...] = ((b"F ", Feedback), (b"C ", Shadow))


class CorruptRecord(ValueError):
    """A whole line that is not a record; it belongs among the dead letters."""


def encode(record: Record) -> bytes:
    """The line of a record, line feed included. Money is written even if what only explains it cannot be.

    Raises TypeError for what is said of an answer in text that is not valid Unicode.
    """
    for kind, shape in _SAID:
        if isinstance(record, shape):
            return _sealed(kind, orjson.dumps(asdict(record)))
    assert isinstance(record, Hold | UsageEvent), "the others are handled above"
    try:
        return _line(record)
    except TypeError:
        pass
    try:
        return _line(record, repr, orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Text that is not valid Unicode, or a number beyond 64 bits.
        return _line(_without_free_text(record))


def decode(line: bytes) -> Record:
    """The record of a whole line (without or with its line feed). Raises CorruptRecord that says what is wrong."""
    line = line.rstrip(b"\n")
    kind, checksum, text = line[:2], line[2:10], line[11:]
    if kind not in _READERS or line[10:11] != b" ":
        raise CorruptRecord("the line does not start like a record")
    if checksum != b"%08x" % crc32(text, crc32(kind)):
        raise CorruptRecord("the checksum does not match")
    try:
        return _READERS[kind](orjson.loads(text))
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptRecord(f"the fields do not make a record: {error}") from error


def _line(record: Hold | UsageEvent, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    if isinstance(record, Hold):
        kind, values = b"H ", dict(zip(_HOLD, _of_hold(record), strict=True))
    else:
        kind, values = b"S ", dict(zip(_EVENT, _of_event(record), strict=True))
        values["attempts"] = [_attempt_values(attempt) for attempt in record.attempts]
        if record.routing is not None:
            values["routing"] = _routing_values(record.routing)
    return _sealed(kind, orjson.dumps(values, default, option))


def _sealed(kind: bytes, text: bytes) -> bytes:
    return b"%b%08x %b\n" % (kind, crc32(text, crc32(kind)), text)


def _getter(kind: type[Any], *without: str) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The field names of a dataclass and a quick reader of their values.

    orjson can write slotted dataclasses itself, at twice the time that this takes; every request waits for it.
    """
    names = tuple(field.name for field in fields(kind) if field.name not in without)
    return names, attrgetter(*names)


_HOLD, _of_hold = _getter(Hold)
_EVENT, _of_event = _getter(UsageEvent, "attempts", "routing")
_ATTEMPT, _of_attempt = _getter(Attempt, "usage", "cost", "charge", "energy")
_USAGE, _of_usage = _getter(Usage)
_, _of_energy = _getter(Energy)
_ROUTING, _of_routing = _getter(RoutingRecord)
_FEATURES, _WORTH = _ROUTING.index("features"), _ROUTING.index("worth")
_of_line = attrgetter("meter", "quantity", "rate", "amount")


def _attempt_values(attempt: Attempt) -> dict[str, Any]:
    values = dict(zip(_ATTEMPT, _of_attempt(attempt), strict=True))
    values["usage"] = dict(zip(_USAGE, _of_usage(attempt.usage), strict=True))
    values["cost"] = [_of_line(line) for line in attempt.cost.lines]
    values["charge"] = [_of_line(line) for line in attempt.charge.lines]
    values["price_sources"] = (attempt.cost.source, attempt.charge.source)
    if attempt.energy is not None:
        values["energy"] = _of_energy(attempt.energy)
    return values


def _routing_values(record: RoutingRecord) -> list[Any]:
    """A list, because every request carries it and names would be half of it. JSON has neither bytes nor infinity."""
    values = list(_of_routing(record))
    if record.features is not None:
        values[_FEATURES] = b2a_base64(record.features, newline=False).decode()
    if record.worth == inf:
        values[_WORTH] = "inf"
    return values


def _hold(values: dict[str, Any]) -> Hold:
    claims = tuple((counter, amount) for counter, amount in values.pop("claims", ()))
    return Hold(**values, claims=claims)


def _event(values: dict[str, Any]) -> UsageEvent:
    attempts = tuple(_attempt(attempt) for attempt in values["attempts"])
    routing = _routing(values["routing"]) if values.get("routing") else None
    return UsageEvent(**{**values, "tags": tuple(values["tags"]), "attempts": attempts, "routing": routing})


def _routing(values: list[Any]) -> RoutingRecord:
    record = RoutingRecord(*values)
    return replace(
        record,
        features=a2b_base64(values[_FEATURES]) if record.features is not None else None,
        unfamiliar=tuple(record.unfamiliar),
        quality=tuple((p, low, high) for p, low, high in record.quality),
        tokens=tuple(record.tokens),
        worth=float(record.worth) if record.worth is not None else None,
        shown=tuple(record.shown) if record.shown is not None else None,
    )


def _attempt(values: dict[str, Any]) -> Attempt:
    # Records of the first version do not name their prices.
    cost_source, charge_source = values.pop("price_sources", ("", ""))
    energy = values.pop("energy", None)
    return Attempt(**{
        **values,
        "usage": Usage(**values["usage"]),
        "cost": _rated(values["cost"], cost_source),
        "charge": _rated(values["charge"], charge_source),
        "energy": Energy(*energy) if energy is not None else None,
    })  # fmt: skip


def _rated(lines: list[list[Any]], source: str) -> Rated:
    made = tuple(RatedLine(*line) for line in lines)
    return Rated(made, sum(line.amount for line in made), source)


def _shadow(values: dict[str, Any]) -> Shadow:
    labels, texts = values.pop("labels"), values.pop("texts")
    return Shadow(
        **values, labels=tuple(Label(**label) for label in labels), texts=Texts(**texts) if texts is not None else None
    )


_READERS: dict[bytes, Callable[[dict[str, Any]], Record]] = {
    b"H ": _hold,
    b"S ": _event,
    b"F ": lambda values: Feedback(**values),
    b"C ": _shadow,
}


def _without_free_text(record: Hold | UsageEvent) -> Hold | UsageEvent:
    if isinstance(record, Hold):
        return replace(
            record,
            key_name=_plain(record.key_name),
            requested_model=_plain(record.requested_model),
            end_user=_plain(record.end_user) if record.end_user is not None else None,
            claims=tuple((_plain(counter), amount) for counter, amount in record.claims),
        )
    return replace(
        record,
        session_id=_plain(record.session_id) if record.session_id is not None else None,
        end_user=_plain(record.end_user) if record.end_user is not None else None,
        tags=tuple(_plain(tag) for tag in record.tags),
        requested_model=_plain(record.requested_model),
        key_name=_plain(record.key_name),
        decision=_plain(record.decision),
        error_code=_plain(record.error_code) if record.error_code is not None else None,
        explanation={},
        routing=_without_odd_text(record.routing) if record.routing is not None else None,
        attempts=tuple(replace(attempt, raw_usage=None, service_tier=None) for attempt in record.attempts),
    )


def _without_odd_text(record: RoutingRecord) -> RoutingRecord:
    needs = {name: _plain(value) if isinstance(value, str) else value for name, value in record.needs.items()}
    return replace(record, needs=needs, prompt=_plain(record.prompt) if record.prompt is not None else None)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
