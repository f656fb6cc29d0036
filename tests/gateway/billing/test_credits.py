"""Credits and credit notes: what is given, once and for ever, and what is refused."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from gateway.billing.grants.give import NewGrant, give, list_grants
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period, draft_invoice, void_invoice
from gateway.billing.invoices.show import read_credit_note, read_invoice
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.db.connect import Database
from gateway.errors import Conflict
from tests.invoicing import NOW, day, deliver, parties, used

OCTOBER = Month(2026, 10)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (NewGrant("acme", 0, "x"), "more than nothing"),
        (NewGrant("acme", -5, "x"), "more than nothing"),
        (NewGrant("acme", 5, "  "), "the reason must not be empty"),
        (NewGrant("acme", 5, "x", -1), "from 0 to 1000, got -1"),
        (NewGrant("acme", 5, "x", 1001), "from 0 to 1000, got 1001"),
        (NewGrant("acme", 5, "x", expires_at=NOW), "is not after"),
        (NewGrant("acme", 5, "x", expires_at=day("2020-01-01")), "nothing could be drawn"),
        (NewGrant("acme", 5, "x", 1, day("2027-01-01"), day("2026-12-01")), "is not after 2027-01-01"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(database: Database, wanted: NewGrant, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        give(database, wanted, NOW)
    assert list_grants(database) == []


@pytest.mark.parametrize("effective", [None, day("2026-10-01")])
def test_the_same_key_gives_a_credit_once_for_ever(
    database: Database, tmp_path: Path, effective: datetime | None
) -> None:
    wanted = NewGrant("acme", 500, "welcome", 1, effective, day("2027-01-01"))
    first = give(database, wanted, NOW, "order-17")
    assert give(database, wanted, day("2030-01-01"), "order-17") == first
    assert give(database, wanted, NOW, "order-18").id != first.id
    for other in (NewGrant("acme", 501, "welcome", 1, effective, day("2027-01-01")), NewGrant("beta", 500, "welcome")):
        with pytest.raises(Conflict, match=f"'order-17' belongs to {first.id}, which differs in"):
            give(database, other, NOW, "order-17")
    assert sum(grant.left_cents for grant in list_grants(database)) == 1000
    assert verify(database, tmp_path).problems == ()


def test_credit_notes_give_back_the_whole_invoice_and_its_tax_and_no_more(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    invoice = close_period(database, "acme", OCTOBER, parties(tax_percent="7.7"), NOW)
    assert (invoice.totals.total_cents, invoice.totals.tax_cents) == (1077, 77)
    notes = [credit_invoice(database, "INV-000001", cents, "slow answers", NOW) for cents in (1, 333, 500)]
    with pytest.raises(Conflict, match=r"is 10\.77 USD, of which 8\.34 is credited; 2\.43 can still be, 2\.44 cannot"):
        credit_invoice(database, "INV-000001", 244, "too much", NOW)
    notes.append(credit_invoice(database, invoice.id, None, "the rest", NOW))
    assert [note.number for note in notes] == [f"CN-00000{number}" for number in range(1, 5)]
    assert (sum(note.amount_cents for note in notes), sum(note.tax_cents for note in notes)) == (1077, 77)
    with pytest.raises(Conflict, match=r"0\.00 can still be"):
        credit_invoice(database, invoice.id, None, "more", NOW)
    assert read_invoice(database, invoice.id).credit_notes == tuple(notes)
    assert read_credit_note(database, "CN-000002") == (read_invoice(database, invoice.id), notes[1])
    with pytest.raises(Conflict, match=r"has the credit note CN-000001, CN-000002.* and cannot be voided"):
        void_invoice(database, "INV-000001", "wrong", NOW)
    assert verify(database, tmp_path).problems == ()


def test_the_same_key_writes_a_credit_note_once(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    close_period(database, "acme", OCTOBER, parties(), NOW)
    first = credit_invoice(database, "INV-000001", None, "outage", NOW, "ticket-4")
    assert credit_invoice(database, "INV-000001", None, "outage", day("2030-01-01"), "ticket-4") == first
    with pytest.raises(Conflict, match="'ticket-4' belongs to CN-000001, which is another credit note"):
        credit_invoice(database, "INV-000001", 5, "outage", NOW, "ticket-4")


@pytest.mark.parametrize(("cents", "reason", "words"), [(0, "x", "0.00"), (-1, "x", "-0.01"), (1, " ", "reason")])
def test_a_credit_note_that_makes_no_sense_is_refused(database: Database, cents: int, reason: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        credit_invoice(database, "INV-000001", cents, reason, NOW)


def test_only_a_finalised_invoice_is_credited_or_voided(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    draft = draft_invoice(database, "acme", OCTOBER, parties(), NOW)
    with pytest.raises(Conflict, match="is draft and cannot be credited"):
        credit_invoice(database, draft.id, 1, "x", NOW)
    with pytest.raises(Conflict, match="is draft and cannot be voided"):
        void_invoice(database, draft.id, "x", NOW)
    close_period(database, "acme", OCTOBER, parties(), NOW)
    with pytest.raises(ValueError, match="the reason must not be empty"):
        void_invoice(database, draft.id, " ", NOW)
    void_invoice(database, draft.id, "x", NOW)
    with pytest.raises(Conflict, match="is void and cannot be credited"):
        credit_invoice(database, draft.id, 1, "x", NOW)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "october", "2026-1٠"]
)
def test_what_is_no_month_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write a month as YYYY-MM"):
        Month.parse(text)


def test_a_month_knows_its_neighbour_and_its_ends() -> None:
    december = Month.parse("2026-12")
    assert (str(december.next), december.end) == ("2027-01", day("2027-01-01"))
    assert Month.of(day("2026-12-31T23:59")) == december < december.next
