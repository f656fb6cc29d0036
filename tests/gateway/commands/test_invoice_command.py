"""`penstock invoice` and `penstock credits` as processes: a month from usage to a PDF, and what they refuse."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pypdf
import pytest
import yaml

from gateway.db.connect import connect
from gateway.types import Usage
from tests.gateway.commands.processes import complaint, penstock
from tests.invoicing import deliver, used

CONFIG = {
    "billing": {"issuer": {"name": "Penstock Inc.", "address": "1 Weir Road"}},
    "tenants": [
        {"name": "acme", "billing": {"name": "Acme Corp.", "po_number": "PO-7", "terms_days": 14, "tax_percent": 20}},
        {"name": "beta"},
    ],
}


class Books:
    """Commands on one data folder in which acme and beta have used something in September 2026."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "penstock.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        self.environment = {
            "PENSTOCK_DATA_DIR": str(folder / "data"),
            "PENSTOCK_CONFIG": str(folder / "penstock.yaml"),
        }
        assert penstock("migrate", environment=self.environment).returncode == 0
        database = connect(f"sqlite:///{folder / 'data' / 'penstock.db'}")
        mine, theirs = (used("2026-09-05", Usage(input=n), tenant=t) for t, n in (("acme", 10**6), ("beta", 500_000)))
        deliver(database, folder, mine, theirs)
        database.close()

    def json(self, *arguments: str) -> Any:
        done = penstock(*arguments, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> tuple[int, str]:
        done = penstock(*arguments, environment=self.environment)
        return done.returncode, complaint(done)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Shared by tests of commands that change nothing."""
    return Books(tmp_path_factory.mktemp("untouched"))


def test_a_month_from_usage_to_a_pdf(books: Books) -> None:
    grant = ("credits", "grant", "--tenant", "acme", "--amount", "2.50", "--reason", "welcome", "--key", "k1")
    given = books.json(*grant, "--effective", "2026-09-01")
    assert books.json(*grant, "--effective", "2026-09-01")["id"] == given["id"]
    draft = books.json("invoice", "draft", "--period", "2026-09", "--tenant", "acme")
    assert (draft["state"], draft["total"]) == ("draft", "9.00")
    closed = books.json("invoice", "close", "--period", "2026-09")
    assert closed["refused"] == []
    mine, theirs = closed["invoices"]
    assert [(each["number"], each["tenant"], each["total"]) for each in (mine, theirs)] == [
        ("INV-000001", "acme", "9.00"), ("INV-000002", "beta", "5.00"),
    ]  # fmt: skip
    assert (mine["usage"], mine["credits"], mine["net"], mine["tax"]) == ("10.00", "-2.50", "7.50", "1.50")
    assert mine["bill_to"]["po_number"] == "PO-7"
    assert books.json("credits", "list", "--tenant", "acme")["credits"][0]["left"] == "0.00"
    [request] = books.json("invoice", "requests", "INV-000001", "--line", "1")["requests"]
    assert request["amount_usd"] == "10"
    credit = ("invoice", "credit", "INV-000001", "--amount", "1.20", "--reason", "slow", "--key", "t1")
    note = books.json(*credit)
    assert books.json(*credit) == note
    audited = [(each["action"], each["object"]) for each in books.json("audit", "--tenant", "acme")["entries"]]
    assert audited == [
        ("invoice.credit", "CN-000001"), ("invoice.close", "acme 2026-09"), ("credits.grant", given["id"]),
    ]  # fmt: skip
    assert (note["number"], note["tax"]) == ("CN-000001", "0.20")
    shown = books.json("invoice", "show", "INV-000001")
    assert (shown["credited"], shown["credit_notes"][0]["id"]) == ("1.20", note["id"])
    assert [each["number"] for each in books.json("invoice", "list", "--tenant", "acme")["invoices"]] == ["INV-000001"]
    for number, words in (("INV-000001", "Total due (USD) 9.00"), ("CN-000001", "Total credited (USD) -1.20")):
        files = [books.folder / f"{number}-{copy}.pdf" for copy in (1, 2)]
        for file in files:
            done = penstock("invoice", "pdf", number, "--out", str(file), environment=books.environment)
            assert done.returncode == 0, done.stderr
        assert files[0].read_bytes() == files[1].read_bytes()
        assert words in " ".join(pypdf.PdfReader(BytesIO(files[0].read_bytes())).pages[0].extract_text().split())
    verified = books.json("ledger", "verify")
    assert (verified["ok"], verified["invoices"], verified["credit_notes"], verified["grants"]) == (True, 2, 1, 1)
    for command in (["invoice", "show", "INV-000001"], ["invoice", "list"], ["credits", "list"]):
        done = penstock(*command, environment=books.environment)
        assert (done.returncode, "acme" in done.stdout) == (0, True)


def test_a_void_invoice_is_issued_again(books: Books) -> None:
    books.json("invoice", "close", "--period", "2026-09", "--tenant", "beta")
    assert books.json("invoice", "void", "INV-000001", "--reason", "address")["state"] == "void"
    [again] = books.json("invoice", "close", "--period", "2026-09", "--tenant", "beta")["invoices"]
    assert again["number"] == "INV-000002"
    assert books.json("credits", "expire") == {"expired": [], "waiting": []}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["invoice", "close", "--period", "2026-9"], 2, "--period: '2026-9' is not a billing period; write a month as"),
        (["invoice", "close", "--period", "2099-01", "--tenant", "acme"], 1, "2099-01 has not ended"),
        (["invoice", "close", "--period", "2026-08"], 1, "there is nothing to close in 2026-08"),
        (
            ["invoice", "close", "--period", "2026-08", "--tenant", "acme"],
            1,
            "'acme' has nothing to invoice in 2026-08",
        ),
        (["invoice", "close", "--period", "2026-09", "--tenant", "x"], 2, "tenant 'x' is not declared"),
        (["invoice", "draft", "--period", "2026-09", "--tenant", "x"], 2, "Known: acme, beta, default"),
        (["invoice", "show", "INV-1"], 1, "no invoice has the number or id 'INV-1'"),
        (["invoice", "pdf", "INV-1", "--out", "x.pdf"], 1, "no invoice has the number or id 'INV-1'"),
        (["invoice", "credit", "INV-1", "--reason", "x"], 2, "give either --amount or --full"),
        (["invoice", "credit", "INV-1", "--reason", "x", "--amount", "-1"], 2, "must not be negative"),
        (["invoice", "credit", "INV-1", "--reason", "x", "--amount", "0.001"], 2, "must be whole cents"),
        (["credits", "grant", "--tenant", "acme", "--amount", "-5", "--reason", "x"], 2, "must not be negative"),
        (["credits", "grant", "--tenant", "acme", "--amount", "0", "--reason", "x"], 2, "must be more than nothing"),
        (["credits", "grant", "--tenant", "acme", "--amount", "NaN", "--reason", "x"], 2, "must be finite"),
        (["credits", "grant", "--tenant", "x", "--amount", "5", "--reason", "x"], 2, "tenant 'x' is not declared"),
        (
            ["credits", "grant", "--tenant", "acme", "--amount", "5", "--reason", "x", "--expires", "2020-01-01"],
            2,
            "nothing could be drawn",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    untouched: Books, arguments: list[str], code: int, words: str
) -> None:
    file = untouched.folder / "data" / "penstock.db"
    before = file.read_bytes()
    found, said = untouched.refused(*arguments)
    assert (found, words in said) == (code, True), said
    assert file.read_bytes() == before


def test_closing_twice_says_with_which_invoice_it_was_closed(books: Books) -> None:
    books.json("invoice", "close", "--period", "2026-09", "--tenant", "acme")
    code, said = books.refused("invoice", "close", "--period", "2026-09", "--tenant", "acme")
    assert (code, "closed already, with invoice INV-000001" in said) == (1, True)


def test_invoices_without_an_issuer_say_what_to_configure(books: Books) -> None:
    Path(books.environment["PENSTOCK_CONFIG"]).write_text("{}", encoding="utf-8")
    code, said = books.refused("invoice", "close", "--period", "2026-09")
    assert (code, "billing: {issuer: {name: ...}}" in said) == (2, True)


def test_a_pdf_that_cannot_be_written_is_named(books: Books) -> None:
    books.json("invoice", "close", "--period", "2026-09", "--tenant", "acme")
    code, said = books.refused("invoice", "pdf", "INV-000001", "--out", str(books.folder / "no" / "x.pdf"))
    assert (code, "cannot write" in said) == (1, True)
