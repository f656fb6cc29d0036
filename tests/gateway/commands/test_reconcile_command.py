"""`penstock reconcile` as processes: from a provider's CSV to a signed month, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.billing.periods.month import Month
from gateway.db.connect import connect
from gateway.types import Usage
from tests.gateway.commands.processes import complaint, penstock
from tests.invoicing import deliver, used
from tests.provider_bills import as_csv, rows_of

CONFIG = {
    "billing": {"issuer": {"name": "Penstock Inc."}, "reconciliation": {"rounding_usd": 0.001, "variance_usd": 0.5}},
    "tenants": [{"name": "acme"}],
}
MONTH = ("--provider", "openai", "--period", "2026-09")


class Books:
    """Commands on a data folder in which acme used two things in September 2026, and the provider's bill of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "penstock.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        self.environment = {
            "PENSTOCK_DATA_DIR": str(folder / "data"),
            "PENSTOCK_CONFIG": str(folder / "penstock.yaml"),
        }
        assert penstock("migrate", environment=self.environment).returncode == 0
        database = connect(f"sqlite:///{folder / 'data' / 'penstock.db'}")
        deliver(database, folder, used("2026-09-05", Usage(input=10**6)), used("2026-09-07", Usage(output=10**6)))
        rows = rows_of(database, Month(2026, 9))
        database.close()
        rows[1].reprice(rows[1].rate * 2)  # 5 USD more than ours
        self.bill = folder / "bill.csv"
        self.bill.write_bytes(as_csv(rows).content)

    def json(self, *arguments: str) -> Any:
        done = penstock(*arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> tuple[int, str]:
        done = penstock(*arguments, environment=self.environment)
        return done.returncode, complaint(done)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Books:
    return Books(tmp_path_factory.mktemp("books"))


def test_from_a_csv_to_a_signed_month(tmp_path: Path) -> None:
    books = Books(tmp_path)
    first = books.json("reconcile", "import", *MONTH, str(books.bill), "--by", "Ada")
    assert (first["format"], first["lines"], first["total_usd"], first["new"]) == ("csv", 2, "15", True)
    assert books.json("reconcile", "import", *MONTH, str(books.bill))["new"] is False
    run = books.json("reconcile", "run", *MONTH, "--by", "Ada")
    assert (run["bill_usd"], run["book_usd"], run["variance_usd"], run["open_usd"]) == ("15", "10", "5", "5")
    assert (run["rounding_tolerance_usd"], run["variance_tolerance_usd"]) == ("0.001", "0.5")
    assert run["classes"] == [
        {"class": "agreed", "findings": 1, "open": 0, "variance_usd": "0"},
        {"class": "price", "findings": 1, "open": 1, "variance_usd": "5"},
    ]
    [finding] = run["findings"]
    assert finding["why"] == "10 instead of 5 USD per million"
    sign = ("reconcile", "sign-off", *MONTH, "--by", "Ada")
    code, said = books.refused(*sign)
    assert (code, "5 USD of variance in 1 findings" in said, "0.5 USD may be" in said) == (1, True, True)
    behind = books.json("reconcile", "requests", run["id"], str(finding["number"]))
    assert [each["quantity"] for each in behind["requests"]] == [10**6]
    table = books.folder / "variances.csv"
    shown = penstock("reconcile", "show", run["id"], "--csv", str(table), environment=books.environment)
    assert "10 instead of 5 USD per million" in shown.stdout
    with table.open(encoding="utf-8") as rows:
        assert [(row["class"], row["variance_usd"]) for row in csv.DictReader(rows)] == [("price", "5")]
    accepted = books.json(
        "reconcile", "accept", run["id"], "--class", "price", "--reason", "new contract", "--by", "Ada"
    )
    assert (accepted["accepted_usd"], accepted["open_usd"]) == ("5", "0")
    signed = books.json(*sign, "--note", "September")
    assert (signed["signed_by"], signed["totals"]["accepted_pico"]) == ("Ada", 5 * 10**12)
    assert books.json("ledger", "verify")["ok"]
    audited = books.json("audit")["entries"]
    assert [(each["action"], each["after"]["variance_usd"]) for each in audited[1:]] == [("reconciliation.accept", "5")]
    assert (audited[0]["action"], audited[0]["object"]) == ("reconciliation.sign_off", "provider openai 2026-09")
    assert all(each["actor"].startswith("command line") for each in audited)
    listed = penstock("reconcile", "sign-offs", "--period", "2026-09", environment=books.environment).stdout
    assert "openai" in listed
    assert [each["id"] for each in books.json("reconcile", "show", *MONTH)["runs"]] == [run["id"]]


def test_a_mapping_that_says_a_column_twice_is_refused(tmp_path: Path) -> None:
    books = Books(tmp_path)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("columns:\n  model: a\n  amount: b\n  model: c\n", encoding="utf-8")
    code, said = books.refused("reconcile", "import", *MONTH, "--columns", str(mapping), str(books.bill))
    assert code == 2
    assert "mapping.yaml: not valid YAML: line 4: the key 'model' stands in line 2 already; leave one of them." in said
    mapping.write_bytes(b"columns: \xff\n")
    assert (
        "mapping.yaml: not valid YAML"
        in books.refused("reconcile", "import", *MONTH, "--columns", str(mapping), str(books.bill))[1]
    )


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a period that is none": (("import", "--provider", "p", "--period", "2026", "BILL"), 2, "--period: '2026' is not"),
    "a bill of another month": (("import", "--provider", "p", "--period", "2026-08", "BILL"), 2, "the bill is of 2026-08"),
    "half a column": (("import", *MONTH, "BILL", "--column", "model"), 2, "--column is 'model'; write it as LEFT=RIGHT"),
    "half a model": (("import", *MONTH, "BILL", "--model", "=x"), 2, "--model is '=x'"),
    "no bill": (("run", "--provider", "nobody", "--period", "2026-09"), 1, "no bill of 'nobody' for 2026-09 is imported"),
    "an unknown run": (("show", "run_1"), 1, "no reconciliation has the id 'run_1'"),
    "an unknown class": (("show", "run_1", "--class", "odd"), 2, "--class is 'odd'; known: agreed, rounding"),
    "a class of no run": (("show", "--class", "price"), 2, "--class and --csv need a run"),
    "nothing to accept": (("accept", "run_1", "--reason", "r", "--by", "b"), 2, "name findings by number or one --class"),
    "nobody's month": (("sign-off", "--period", "2026-09", "--by", "b"), 2, "give either --provider or --tenant"),
    "an open month": (("sign-off", "--tenant", "acme", "--period", "2026-09", "--by", "b"), 1, "it is open; `penstock invoice"),
    "a typed key": (("fetch", *MONTH, "--format", "openai", "--key", "sk-1", "--out", "o"), 2, "--key must name a variable"),
    "an unset key": (
        ("fetch", *MONTH, "--format", "openai", "--key", "env:NOT_SET_AT_ALL", "--out", "o"), 2,
        "the variable of 'env:NOT_SET_AT_ALL' is not set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_said(books: Books, what: str) -> None:
    arguments, code, message = REFUSED[what]
    given = [str(books.bill) if each == "BILL" else each for each in arguments]
    found, said = books.refused("reconcile", *given)
    assert found == code
    assert message in said
    assert ".." not in said
