"""`penstock requests`, `rollups` and `retention` as processes: what they show, change and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.db.connect import connect
from gateway.types import Usage
from tests.gateway.commands.processes import complaint, penstock
from tests.invoicing import deliver, used

CONFIG = {"billing": {"issuer": {"name": "Penstock Inc."}}, "retention": {"requests_days": 31}}


class Books:
    """Commands on a data folder in which acme has used something in March 2026 and beta in April 2026."""

    def __init__(self, folder: Path) -> None:
        (folder / "penstock.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        self.environment = {"PENSTOCK_DATA_DIR": str(folder / "data"), "PENSTOCK_CONFIG": str(folder / "penstock.yaml")}
        assert penstock("migrate", environment=self.environment).returncode == 0
        database = connect(f"sqlite:///{folder / 'data' / 'penstock.db'}")
        mine = used("2026-03-05", Usage(input=10**6), tenant="acme", model="large")
        deliver(database, folder, mine, used("2026-04-05", tenant="beta"))
        database.close()

    def json(self, *arguments: str) -> Any:
        done = penstock(*arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def test_a_month_from_its_requests_to_their_removal(books: Books) -> None:
    [newest] = (page := books.json("requests", "--limit", "1"))["requests"]
    assert (newest["tenant"], newest["charge_usd"]) == ("beta", "10")
    [oldest] = books.json("requests", "--before", page["next"])["requests"]
    assert [oldest] == books.json("requests", "--tenant", "acme", "--model", "large", "--until", "2026-04")["requests"]
    for outcome, many in (("completed", 2), ("corrected", 0)):
        assert len(books.json("requests", "--outcome", outcome)["requests"]) == many
    assert books.json("requests", "--since", "2026-05")["requests"] == []

    assert books.json("rollups", "rebuild", "--period", "2026-03") == {"period": "2026-03", "rows": 1}
    books.json("invoice", "close", "--period", "2026-03", "--tenant", "acme")
    planned = books.json("retention")
    assert planned == {
        "applied": False,
        "requests": [
            {"month": "2026-03", "requests": 1, "needed": []},
            {"month": "2026-04", "requests": 1, "needed": ["2026-04 of beta is open"]},
        ],
        "explanations": [],
    }
    assert books.json("retention", "--apply") == {**planned, "applied": True}
    assert [one["tenant"] for one in books.json("requests")["requests"]] == ["beta"]
    assert books.json("usage", "--since", "2026-03")["total"]["charge_usd"] == "20"
    assert books.json("ledger", "verify")["ok"] is True
    refused = penstock("rollups", "rebuild", "--period", "2026-03", environment=books.environment)
    assert (refused.returncode, "nothing is left to make them from" in complaint(refused)) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("requests", "--before", "yesterday"), "is not the `next` of a page of requests"),
        (("rollups", "rebuild", "--period", "2026-13"), "'2026-13' is not a billing period"),
        (("requests", "--outcome", "lost"), "'lost' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(books: Books, arguments: tuple[str, ...], words: str) -> None:
    done = penstock(*arguments, environment=books.environment)
    assert done.returncode == 2
    assert words in done.stderr


def test_retention_without_a_rule_says_how_to_make_one(books: Books) -> None:
    environment = {name: value for name, value in books.environment.items() if name != "PENSTOCK_CONFIG"}
    done = penstock("retention", environment=environment)
    assert (done.returncode, "retention: {requests_days: 400}" in complaint(done)) == (2, True)
