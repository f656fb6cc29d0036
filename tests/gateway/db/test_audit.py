"""The audit log: in the transaction of the change, in pages by id, by tenant."""

from __future__ import annotations

import pytest

from gateway.db.audit import Change, audit_page, record_audit, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import transaction

NOW = 1_790_000_000.0


def test_pages_hold_every_entry_once_newest_first_while_more_arrive(database: Database) -> None:
    for number in range(7):
        record_audit(database, "ann", NOW, Change("a.b", str(number), "acme" if number % 2 else None))
    seen, before = [], None
    while True:
        page = audit_page(database, 3, before)
        seen += [entry["object"] for entry in page.entries]
        record_audit(database, "ann", NOW, Change("a.b", "late"))
        before = page.next
        if before is None:
            break
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]
    assert [entry["object"] for entry in audit_page(database, tenant="acme").entries] == ["5", "3", "1"]
    assert audit_page(database, tenant="nobody") == type(audit_page(database))((), None)


def test_an_entry_says_who_what_and_how_it_was_and_is(database: Database) -> None:
    record_audit(database, "ann Ü", NOW, Change("keys.create", "key_1", "acme", None, {"name": "日本/:"}))
    [entry] = audit_page(database).entries
    assert entry["id"] > 0
    assert {**entry, "id": 0} == {
        "id": 0,
        "at": "2026-09-21T14:13:20+00:00",
        "actor": "ann Ü",
        "action": "keys.create",
        "object": "key_1",
        "tenant": "acme",
        "before": None,
        "after": {"name": "日本/:"},
    }


def test_a_change_that_fails_leaves_no_entry(database: Database) -> None:
    def fail() -> None:
        with transaction(database) as connection:
            write_audit(connection, "ann", NOW, Change("a.b", "x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert audit_page(database).entries == ()
