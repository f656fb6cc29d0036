"""Invoices are found by number or id; a number that is not unique or not known says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import Parties, close_period, void_invoice
from gateway.billing.invoices.show import read_invoice
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.config import Billing, Issuer
from gateway.db.connect import Database
from gateway.errors import Conflict, UnknownDocument
from tests.invoicing import NOW, deliver, parties, used

OCTOBER = Month(2026, 10)


def test_an_unknown_invoice_is_named(database: Database) -> None:
    for ask in (read_invoice, lambda db, name: void_invoice(db, name, "why", NOW)):
        with pytest.raises(UnknownDocument, match="no invoice has the number or id 'INV-9'"):
            ask(database, "INV-9")
    with pytest.raises(UnknownDocument, match="'INV-9'"):
        credit_invoice(database, "INV-9", 1, "why", NOW)


def test_every_issuer_has_numbers_of_its_own(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"), used("2026-10-05", tenant="other"))
    mine = close_period(database, "acme", OCTOBER, parties(), NOW)
    between = parties()
    renamed = Parties(Billing(issuer=Issuer(name="Weir Ltd.")), between.bill_to)
    theirs = close_period(database, "other", OCTOBER, renamed, NOW)
    assert mine.number == theirs.number == "INV-000001"
    with pytest.raises(Conflict, match="2 issuers have given the number 'INV-000001'; use an id: invoice_"):
        read_invoice(database, "INV-000001")
    assert read_invoice(database, theirs.id).issuer["name"] == "Weir Ltd."
    assert verify(database, tmp_path).problems == ()
