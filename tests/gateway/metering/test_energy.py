"""Energy that engines report: read by rule, kept in the spool, summed in rows and roll-ups, and unknown where nobody said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.ledger import verify
from gateway.db.connect import Database
from gateway.energy import Energy, add_up
from gateway.metering.deliver import Deliverer
from gateway.metering.energy import read_energy
from gateway.metering.publish import metered
from gateway.metering.records import decode, encode
from gateway.metering.spool import Spool
from gateway.reports.usage.parts import Part
from gateway.reports.usage.report import sum_up, usage_report
from gateway.types import Attempt, UsageEvent
from tests.usage import attempt, event

MEASURED = Energy(2_318_204, 304_586, estimated=False)


def deliver(database: Database, folder: Path, *finished: UsageEvent) -> None:
    spool = Spool.open(folder)
    for each in finished:
        spool.settle(each)
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()
    spool.close()


def with_energy(call: Attempt, energy: Energy | None) -> Attempt:
    return dataclasses.replace(call, energy=energy)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"joules": 2.318204, "co2e_grams": 0.000304586, "estimated": False}, MEASURED),
        ({"joules": 1}, Energy(1_000_000)),
        ({"joules": 0, "co2e_grams": None, "estimated": False}, Energy(0, None, estimated=False)),
        ({"joules": 1, "co2e_grams": "much"}, Energy(1_000_000)),
        ({"joules": -1}, None),
        ({"joules": float("nan")}, None),
        ({"joules": float("inf")}, None),
        ({"joules": 10**300}, None),
        ({"joules": 2**62 / 10**6}, None),
        ({"joules": True}, None),
        ({"joules": "3"}, None),
        ({}, None),
        ("three", None),
    ],
)
def test_a_report_is_read_by_rule(said: Any, read: Energy | None) -> None:
    assert read_energy({"prompt_tokens": 3, "energy": said}) == read


def test_a_sum_knows_what_is_known_and_is_estimated_as_soon_as_a_part_is() -> None:
    assert read_energy(None) is read_energy({"prompt_tokens": 3}) is add_up([None, None]) is None
    assert add_up([None, MEASURED]) == MEASURED
    assert add_up([MEASURED, Energy(1)]) == Energy(2_318_205, 304_586, estimated=True)
    assert (MEASURED.joules_text, MEASURED.grams_text) == ("2.318204", "0.000304586")


def test_it_goes_through_the_spool_and_into_events_and_records_of_before_have_none() -> None:
    finished = event(with_energy(attempt(1), MEASURED), attempt(2))
    assert decode(encode(finished)) == finished
    data = metered(finished).data
    assert (data["energy_joules"], data["co2e_grams"], data["energy_estimated"]) == ("2.318204", "0.000304586", False)
    plain = decode(encode(event()))
    assert isinstance(plain, UsageEvent)
    assert plain.energy is None
    assert metered(plain).data["energy_joules"] is None


def test_rows_and_roll_ups_say_the_same_and_unknown_is_not_zero(database: Database, tmp_path: Path) -> None:
    deliver(
        database,
        tmp_path,
        event(with_energy(attempt(1, model="own"), MEASURED), with_energy(attempt(2, model="own"), Energy(5, 7))),
        event(with_energy(attempt(1, model="own"), Energy(1, None, estimated=False))),
        event(attempt(1, model="external")),
    )
    for groups in (("model",), ("tenant", "day"), ()):
        asked = usage_report(database, None, None, groups)
        assert asked == sum_up(database, None, None, groups, [Part("rows", None, None)])
        assert asked.total.energy == Energy(2_318_210, 304_593, estimated=True)
    by_model = {row.groups: row for row in usage_report(database, None, None, ("model",)).rows}
    assert by_model["own",].energy == Energy(2_318_210, 304_593, estimated=True)
    assert by_model["external",].energy is None
    assert by_model["external",].as_dict()["energy_joules"] is None
    checked = verify(database, tmp_path)
    assert checked.ok, checked.problems
