"""What people decide about a reconciled month: acceptance posts, disputes do not, a sign-off is refused until it is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.billing.reconcile.accept import decide
from gateway.billing.reconcile.lines import Settings
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import import_bill, reconcile
from gateway.billing.reconcile.sign_off import list_sign_offs, sign_off
from gateway.db.audit import audit_page
from gateway.db.connect import Database
from gateway.errors import Conflict
from gateway.money import UNITS_PER_PRICE, format_usd
from tests.month import deliver, requests
from tests.planted_errors import PLANTED
from tests.provider_bills import as_csv, rows_of
from tests.reconciling import EXACT, NOW, SEPTEMBER, found, run_with
from tests.worked_example import entries


def test_accepting_posts_the_cost_and_allows_the_sign_off(books: Database, tmp_path: Path) -> None:
    rows = rows_of(books, SEPTEMBER)
    expected = {kind: plant(rows) for kind, plant in list(PLANTED.values())[:5]}
    run = run_with(books, rows)
    with pytest.raises(Conflict, match=r"USD of variance in 5 findings of run_\w+ is neither accepted nor disputed"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    with pytest.raises(ValueError, match="must not be empty"):
        decide(books, run.id, [1], "accepted", " ", "Fin", NOW)
    open_ones = [each.number for each in run.findings if each.state == "open"]
    assert len(open_ones) == 5
    disputed = next(each for each in run.findings if each.kind == "duplicate")
    decide(books, run.id, [disputed.number], "disputed", "asked for it back", "Fin", NOW)
    for each in set(open_ones) - {disputed.number}:
        run = decide(books, run.id, [each], "accepted", "checked", "Fin", NOW)
    with pytest.raises(Conflict, match="is accepted already, by Fin: checked"):
        decide(books, run.id, open_ones, "accepted", "again", "Fin", NOW)
    assert run.total("accepted") == sum(expected.values()) - expected["duplicate"]
    assert verify(books, tmp_path / "spool").problems == ()
    signed = sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "closed with the bill", NOW)
    assert signed.totals["accepted_pico"] + signed.totals["disputed_pico"] + run.book_pico == run.bill_pico
    with pytest.raises(Conflict, match="is signed off already, by Fin on 2026-10-05, and has not changed since"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)

    again = reconcile(books, "openai", SEPTEMBER, EXACT, NOW, "Fin")
    assert [each.state for each in again.findings if each.variance_pico] == [
        "disputed" if each.kind == "duplicate" else "accepted" for each in again.findings if each.variance_pico
    ]
    assert list_sign_offs(books)[0].changes == {}

    corrected = run_with(books, rows_of(books, SEPTEMBER))
    assert found(corrected) == {}
    assert verify(books, tmp_path / "spool").problems == ()
    [shown] = list_sign_offs(books)
    assert shown.changes["accepted_pico"] == (run.total("accepted"), 0)
    assert shown.changes["bill_pico"] == (run.bill_pico, corrected.bill_pico)
    assert sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "second bill", NOW).changes == {}


def test_every_decision_and_signature_is_in_the_audit_log_and_nothing_refused_is(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    for _, plant in list(PLANTED.values())[:2]:
        plant(rows)
    run = run_with(books, rows)
    first, second = (each.number for each in run.findings if each.state == "open")
    variance = {each.number: format_usd(each.variance_pico) for each in run.findings}
    assert audit_page(books).entries == ()
    with pytest.raises(Conflict, match="is neither accepted nor disputed"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    decide(books, run.id, [first], "accepted", " checked ", "Fin", NOW, actor="member Ada")
    with pytest.raises(Conflict, match="is accepted already"):
        decide(books, run.id, [second, first], "disputed", "all", "Fin", NOW)
    decide(books, run.id, [second], "disputed", "asked back", "Fin", NOW)
    signed = sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "done", NOW, actor="member Ada")
    with pytest.raises(Conflict, match="is signed off already"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    forced = sign_off(books, "tenant", "acme", SEPTEMBER, "Fin", "", NOW, force="the auditor waits")

    entries = list(reversed(audit_page(books).entries))
    assert [(each["actor"], each["action"], each["object"], each["tenant"]) for each in entries] == [
        ("member Ada", "reconciliation.accept", run.id, None),
        ("Fin", "reconciliation.dispute", run.id, None),
        ("member Ada", "reconciliation.sign_off", "provider openai 2026-09", None),
        ("Fin", "reconciliation.sign_off", "tenant acme 2026-09", None),
    ]
    assert entries[0]["after"] == {
        "provider": "openai", "period": "2026-09", "findings": [first], "variance_usd": variance[first],
        "reason": "checked", "by": "Fin",
    }  # fmt: skip
    assert (entries[1]["after"]["findings"], entries[1]["after"]["reason"]) == ([second], "asked back")
    assert entries[2]["after"]["totals"] == signed.totals
    assert entries[3]["after"]["forced"] == forced.forced


def test_usage_that_arrives_after_the_run_or_the_sign_off_is_not_overlooked(books: Database, tmp_path: Path) -> None:
    rows = rows_of(books, SEPTEMBER)
    run_with(books, rows)
    more = requests(3, seed=9)
    deliver(books, tmp_path / "later", more)
    with pytest.raises(Conflict, match=r"USD of usage has arrived since run_\w+; reconcile again"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    forced = sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW, force="the auditor waits")
    assert forced.forced is not None
    assert forced.forced.startswith("the auditor waits (")
    deliver(books, tmp_path / "latest", requests(3, seed=10))
    [signed] = list_sign_offs(books, "provider", "openai", "2026-09")
    assert signed.changes["requests"][1] > signed.changes["requests"][0]


def test_the_same_files_twice_change_nothing_and_other_files_must_replace(books: Database) -> None:
    rows = rows_of(books, SEPTEMBER)
    bill = read_bill("openai", SEPTEMBER, [as_csv(rows)])
    first, new = import_bill(books, bill, NOW, "fin")
    assert new
    assert import_bill(books, read_bill("openai", SEPTEMBER, [as_csv(rows, "other name.csv")]), NOW, "fin") == (
        first,
        False,
    )
    rows[0].amount += UNITS_PER_PRICE
    with pytest.raises(Conflict, match=r"has a bill already, imported 2026-10-05 09:00 from bill.csv.*--replace"):
        import_bill(books, read_bill("openai", SEPTEMBER, [as_csv(rows)]), NOW, "fin")


def test_reconciling_without_a_bill_and_signing_an_unfinished_month_say_so(books: Database) -> None:
    with pytest.raises(Conflict, match="no bill of 'openai' for 2026-09 is imported"):
        reconcile(books, "openai", SEPTEMBER, EXACT, NOW, "fin")
    with pytest.raises(Conflict, match="2026-10 has not ended"):
        sign_off(books, "provider", "openai", Month(2026, 10), "Fin", "", NOW)
    with pytest.raises(Conflict, match="no bill is imported"):
        sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", NOW)
    with pytest.raises(Conflict, match="it is open; `penstock invoice close` closes it"):
        sign_off(books, "tenant", "acme", SEPTEMBER, "Fin", "", NOW)


def test_a_server_that_speaks_openais_api_has_a_bill_of_its_own(books: Database, tmp_path: Path) -> None:
    mine = [row for row in rows_of(books, SEPTEMBER) if row.model == "gpt-2026"]
    mine[0].reprice(mine[0].rate + 10**12)
    scope = Settings(booked_as="openai", only=("gpt-2026",))
    import_bill(books, read_bill("elsewhere", SEPTEMBER, [as_csv(mine)], settings=scope), NOW, "fin")
    run = reconcile(books, "elsewhere", SEPTEMBER, EXACT, NOW, "fin", [("openai", "odd-2026"), ("other", "x")])
    assert set(found(run)) == {"price"}
    assert run.book_pico < sum(row.amount for row in rows_of(books, SEPTEMBER))
    decide(books, run.id, (), "accepted", "new price", "Fin", NOW, kind="price")
    assert {account for _, account, _ in entries(books, "reconciliation")} == {"cost:openai", "payable:openai"}
    assert sign_off(books, "provider", "elsewhere", SEPTEMBER, "Fin", "", NOW).totals["book_pico"] == run.book_pico
    assert verify(books, tmp_path / "spool").problems == ()
