"""`penstock router replay` as a process: what it says of past requests, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.db.connect import connect
from gateway.types import Usage, UsageEvent
from tests.gateway.commands.processes import complaint, penstock
from tests.gateway.metering.test_routing_records import RECORD
from tests.invoicing import deliver, used

MODELS = [
    {"name": name, "tier": tier, "provider": "scripted", "price": {"input": price, "output": price}}
    for name, tier, price in (("small", "economy", 1), ("large", "premium", 10))
]
_numbers = itertools.count()
PERIOD = ("--since", "2026-03-01", "--until", "2026-04-01")


def routed(at: str, p: float, tenant: str = "acme") -> UsageEvent:
    """A request that went to the small model, which is this good."""
    quality = ((p, 0.0, 1.0), (0.8, 0.0, 1.0), (0.9, 0.0, 1.0))
    record = dataclasses.replace(
        RECORD,
        quality=quality,
        unfamiliar=(),
        needs={},
        min_quality=None,
        input_tokens=100,
        tokens=(100, 100, 100),
        shown=None,
    )
    made = used(at, Usage(input=100, output=100), tenant=tenant, model="small")
    return dataclasses.replace(made, request_id=f"req_{next(_numbers):024x}", routing=record)


class Past:
    """Commands on a data folder with two requests of acme and one of beta, each prompt keeping its floor by itself."""

    def __init__(self, folder: Path) -> None:
        config = {
            "models": MODELS,
            "policies": {"default": {"min_quality": 0.5, "floor": "each"}, "best": {"objective": "quality"}},
        }
        (folder / "penstock.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.folder = folder
        self.environment = {"PENSTOCK_DATA_DIR": str(folder / "data"), "PENSTOCK_CONFIG": str(folder / "penstock.yaml")}
        assert penstock("migrate", environment=self.environment).returncode == 0
        database = connect(f"sqlite:///{folder / 'data' / 'penstock.db'}")
        without = used("2026-03-07", Usage(input=1, output=1))
        deliver(
            database,
            folder,
            routed("2026-03-05", 0.6),
            routed("2026-03-06", 0.85),
            routed("2026-03-07", 0.6, "beta"),
            without,
        )
        database.close()

    def replay(self, *arguments: str) -> Any:
        done = penstock("router", "replay", *PERIOD, *arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_a_higher_floor_moves_what_falls_below_it(past: Past) -> None:
    same, higher = past.replay(), past.replay("--min-quality", "0.9")
    assert (same["moved"]["requests"], higher["moved"]["requests"]) == (0, 2)
    assert (same["requests"]["replayed"], same["requests"]["without_record"]) == (3, 1)
    assert higher["moves"] == [
        {"from": "small", "to": "large", "requests": 2, "share": pytest.approx(2 / 3, abs=1e-6), "change_usd": 0.0036}
    ]
    assert [each["why"] for each in higher["examples"]] == ["premium: quality 0.90 of best 0.90, floor 0.81"] * 2
    assert past.replay("--min-quality", "0.9", "--tenant", "beta")["moved"] == {"requests": 1, "share": 1.0}


def test_a_policy_by_name_and_by_file_and_other_prices(past: Past, tmp_path: Path) -> None:
    assert past.replay("--policy", "best")["moved"]["requests"] == 3
    file = tmp_path / "policy.yaml"
    file.write_text("floor: each\nmin_quality: 0.7\n")
    assert past.replay("--policy", str(file))["moved"]["requests"] == 2
    cheap = tmp_path / "cheap.yaml"
    prices = [{**MODELS[0], "price": {"input": 100, "output": 100}}, MODELS[1]]
    cheap.write_text(yaml.safe_dump({"models": prices}))
    found = past.replay("--config", str(cheap), "--policy", str(file))
    assert found["moved"]["requests"] == 3
    assert found["cost_usd"]["change"] < 0


def test_people_get_the_same_as_text(past: Past) -> None:
    done = penstock("router", "replay", *PERIOD, "--min-quality", "0.9", environment=past.environment)
    assert done.returncode == 0, done.stderr
    for words in (
        "3 requests",
        "not replayed: 1 (without a routing record: shadow requests, and requests under `remember: nothing`)",
        "both expected at the prices of the replay",
        "0.0036",
        "moved     2 requests",
        "small  large",
        "Not replayed: budgets",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "nobody"), "There is no policy 'nobody'. There are: best, default."),
        (("--since", "2026-05-01"), "it must end later"),
        (("--artifact", "kernel-0"), "there is no artifact 'kernel-0'"),
        (("--tenant", "nosuch"), "of the tenant 'nosuch', which the configuration does not have"),
        (("--since", "2026-03-30"), "There is nothing to replay"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_the_way_out(
    past: Past, arguments: tuple[str, ...], words: str
) -> None:
    done = penstock("router", "replay", *PERIOD, *arguments, environment=past.environment)
    assert done.returncode != 0
    assert words in complaint(done)


@pytest.mark.parametrize(("text", "words"), [("floor: [", "cannot be read"), ("florr: each\n", "did you mean 'floor'")])
def test_a_wrong_policy_file_says_what_is_wrong_in_it(past: Past, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    done = penstock("router", "replay", *PERIOD, "--policy", str(file), environment=past.environment)
    assert done.returncode != 0
    assert words in complaint(done)


def test_a_configuration_without_models_can_answer_nothing(past: Past, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("models: []\n")
    done = penstock("router", "replay", *PERIOD, "--config", str(empty), environment=past.environment)
    assert done.returncode != 0
    assert "has no models" in complaint(done)
    done = penstock("router", "explain", "hello", "--config", str(empty), environment=past.environment)
    assert done.returncode == 1
    assert "has no models" in complaint(done)


@pytest.mark.parametrize("value", ["nan", "inf", "2"])
def test_a_floor_is_a_number_from_0_to_1(value: str) -> None:
    done = penstock("router", "replay", "--min-quality", value)
    assert done.returncode == 2
    assert "Invalid value for '--min-quality'" in done.stderr
