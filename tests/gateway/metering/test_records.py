"""What the spool's lines promise: they come back as they went in, and a damaged one is recognised."""

from __future__ import annotations

import dataclasses
from zlib import crc32

import orjson
import pytest

from gateway.metering.records import CorruptRecord, decode, encode
from gateway.types import Usage, UsageEvent
from tests.usage import attempt, event, hold_of


def test_a_hold_comes_back_as_it_went_in() -> None:
    hold = hold_of(event(), key_name="schlüssel\n")
    assert decode(encode(hold)) == hold


def test_a_finished_request_comes_back_with_every_attempt_and_rated_line() -> None:
    failed = attempt(1, Usage(), status="error", error_code="provider_failed", raw_usage=None)
    finished = event(failed, attempt(2, Usage(input=7, reasoning=3, gpu_seconds=1_500_000, estimated=True)))
    assert decode(encode(finished)) == finished


def test_a_record_of_the_version_that_did_not_name_its_prices_is_still_read() -> None:
    finished = event(attempt(service_tier="flex"))
    values = orjson.loads(encode(finished)[11:])
    for each in values["attempts"]:
        del each["price_sources"], each["service_tier"]
    text = orjson.dumps(values)
    read = decode(b"S %08x %b\n" % (crc32(text, crc32(b"S ")), text))
    assert isinstance(read, UsageEvent)
    assert (read.charge, read.attempts[0].charge.lines) == (finished.charge, finished.attempts[0].charge.lines)
    assert (read.attempts[0].charge.source, read.attempts[0].service_tier) == ("", None)


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    line = encode(event(decision="two\nlines", explanation={"a": "\n\r\u2028"}))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@pytest.mark.parametrize("position", [0, 1, 4, 10, 40, -3])
def test_one_changed_byte_is_noticed_wherever_it_is(position: int) -> None:
    line = bytearray(encode(event()))
    line[position] ^= 1
    with pytest.raises(CorruptRecord):
        decode(bytes(line))


@pytest.mark.parametrize("line", [b"\n", b"H\n", b"H 00000000 {}\n", b"\0" * 50 + b"\n", b"S zzzzzzzz {}\n"])
def test_lines_that_are_no_records_are_refused(line: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode(line)


def test_fields_of_another_version_are_refused_rather_than_guessed() -> None:
    text = b'{"request_id":"r","amount":5}'
    with pytest.raises(CorruptRecord, match="fields do not make a record"):
        decode(b"H %08x %b\n" % (crc32(text, crc32(b"H ")), text))


def test_an_explanation_that_json_cannot_hold_does_not_stop_the_metering() -> None:
    finished = event(explanation={1: {2, 3}, "when": object()})
    assert decode(encode(finished)).charge == finished.charge  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [{"session_id": "\ud800"}, {"explanation": {"huge": 2**70}}, {"tags": ("\ud800",)}])
def test_text_and_numbers_that_json_cannot_hold_do_not_stop_the_metering(change: dict[str, object]) -> None:
    finished = dataclasses.replace(event(), **change)  # type: ignore[arg-type]
    read = decode(encode(finished))
    assert (read.request_id, read.charge, read.cost) == (finished.request_id, finished.charge, finished.cost)  # type: ignore[union-attr]
