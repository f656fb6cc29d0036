"""Closing while others close or deliver: numbers without gaps, no usage lost, none billed twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.document import CreditNote, Invoice
from gateway.billing.invoices.issue import close_period
from gateway.billing.ledger import verify
from gateway.billing.periods.month import Month
from gateway.db.connect import Database, connect
from gateway.db.transaction import transaction
from gateway.errors import Conflict
from gateway.types import Usage
from tests.invoicing import NOW, day, deliver, parties, used

OCTOBER, NOVEMBER = Month(2026, 10), Month(2026, 11)


def close(database: Database, tenant: str = "acme", month: Month = OCTOBER) -> Invoice:
    return close_period(database, tenant, month, parties(), NOW if month == OCTOBER else day("2026-12-01"))


def together(database_url: str, *jobs: Callable[[Database], None]) -> list[Conflict]:
    """Run jobs at once, each with a connection of its own; what was refused."""
    refused: list[Conflict] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[Database], None]) -> None:
        mine = connect(database_url)
        start.wait()
        try:
            job(mine)
        except Conflict as error:
            refused.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


@pytest.mark.parametrize("same_tenant", [False, True], ids=["many tenants", "one tenant"])
def test_parallel_closes_number_without_gaps(
    database: Database, database_url: str, tmp_path: Path, same_tenant: bool
) -> None:
    tenants = [f"tenant{number}" for number in range(8)]
    deliver(database, tmp_path, *(used("2026-10-05", tenant=tenant) for tenant in tenants))
    closed: list[Invoice] = []

    def closing(tenant: str) -> Callable[[Database], None]:
        return lambda mine: closed.append(close(mine, tenant))

    refused = together(database_url, *(closing("tenant0" if same_tenant else tenant) for tenant in tenants))
    expected = 1 if same_tenant else 8
    assert sorted(str(invoice.number) for invoice in closed) == [f"INV-{n:06d}" for n in range(1, expected + 1)]
    assert len(refused) == 8 - expected
    assert verify(database, tmp_path).problems == ()


def test_usage_that_arrives_during_a_close_is_billed_exactly_once(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    deliver(database, tmp_path, used("2026-10-01"))
    batches = [[used("2026-10-20", Usage(input=number)) for number in range(1, 6)] for _ in range(40)]
    half_way = threading.Event()

    def delivering(mine: Database) -> None:
        for number, batch in enumerate(batches):
            if number == 10:
                half_way.set()
            deliver(mine, tmp_path, *batch)

    def closing(mine: Database) -> None:
        half_way.wait(30)
        close(mine)

    assert together(database_url, delivering, closing) == []
    assert verify(database, tmp_path).problems == ()
    deliver(database, tmp_path, used("2026-10-31"))
    november = close(database, month=NOVEMBER)
    october = 1_000_000 * 10_000_000 + 40 * 15 * 10_000_000 + 1_000_000 * 10_000_000
    from gateway.billing.invoices.show import list_invoices

    assert sum(invoice.totals.usage_pico for invoice in list_invoices(database)) == october
    assert {line.kind for line in november.lines} == {"correction", "tax"}
    assert verify(database, tmp_path).problems == ()


def test_parallel_credit_notes_never_exceed_the_invoice(database: Database, database_url: str, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    invoice = close(database)
    notes: list[CreditNote] = []
    job: Callable[[Database], None] = lambda mine: notes.append(  # noqa: E731
        credit_invoice(mine, invoice.id, 500, "slow answers", NOW)
    )
    refused = together(database_url, *[job] * 5)
    assert [note.amount_cents for note in notes] == [500, 500], "two notes of 5.00 fit into 12.00"
    assert len(refused) == 3
    assert sorted(note.number for note in notes) == ["CN-000001", "CN-000002"]
    assert verify(database, tmp_path).problems == ()


def test_a_finalisation_that_fails_gives_its_number_again(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path, used("2026-10-05"))
    with transaction(database) as connection:
        connection.execute(text("ALTER TABLE ledger_references RENAME TO away"))
    with pytest.raises(Exception, match="ledger_references"):
        close(database)
    with transaction(database) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO ledger_references"))
    assert close(database).number == "INV-000001"
    assert verify(database, tmp_path).problems == ()


def test_an_invoice_beyond_the_largest_amount_is_refused_and_takes_no_number(
    database: Database, tmp_path: Path
) -> None:
    huge = [used("2026-10-06", Usage(input=50_000_000), tenant="big", usd=usd) for usd in (90_000, 99_000)]
    deliver(database, tmp_path, used("2026-10-05"), *huge)
    with pytest.raises(Conflict, match="beyond 9000000 USD"):
        close(database, "big")
    assert close(database).number == "INV-000001"
