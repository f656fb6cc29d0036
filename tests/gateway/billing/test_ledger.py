"""The ledger on real databases: what posting writes, and that verifying finds every way in which books can be wrong."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text, update

from gateway.billing.ledger import Account, entries_of, verify
from gateway.db.connect import Database
from gateway.db.tables import (
    attempts,
    holds,
    ledger_accounts,
    ledger_entries,
    ledger_transactions,
    moment,
    rated_lines,
    usage_events,
)
from gateway.db.transaction import snapshot, transaction
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.types import Usage, UsageEvent
from tests.usage import attempt, event, hold_of


def deliver(database: Database, folder: Path, *events: UsageEvent) -> None:
    spool = Spool.open(folder)
    for finished in events:
        spool.hold(hold_of(finished))
        spool.settle(finished)
    spool.close()
    deliverer = Deliverer(folder, database)
    deliverer.deliver_once()
    deliverer.close()


def test_a_request_with_a_fallback_is_booked_where_each_attempt_was_billed() -> None:
    failed = attempt(1, Usage(input=1_000_000), model="own", provider="engine", status="error")
    answered = attempt(2, Usage(input=1_000_000, output=1_000_000), model="large", provider="openai")
    entries = entries_of(event(failed, answered))
    assert entries == {
        Account("receivable", "acme"): failed.charge.total + answered.charge.total,
        Account("revenue", "own"): -failed.charge.total,
        Account("revenue", "large"): -answered.charge.total,
        Account("cost", "engine"): failed.cost.total,
        Account("payable", "engine"): -failed.cost.total,
        Account("cost", "openai"): answered.cost.total,
        Account("payable", "openai"): -answered.cost.total,
    }
    assert [account.name for account in entries][:2] == ["tenant:acme:receivable", "revenue:own"]
    assert sum(entries.values()) == 0


def test_books_of_many_requests_add_up_to_the_pico(database: Database, tmp_path: Path) -> None:
    events = [
        event(attempt(1, Usage(input=number, output=3 * number, reasoning=number % 7)), tenant=f"tenant{number % 3}")
        for number in range(1, 60)
    ]
    deliver(database, tmp_path / "spool", *events)
    checked = verify(database, tmp_path / "spool")
    assert checked.ok, checked.problems
    assert checked.charge_pico == sum(finished.charge for finished in events)
    assert checked.cost_pico == sum(finished.cost for finished in events)
    with snapshot(database) as connection:
        sums = dict(
            connection.execute(
                text(
                    "SELECT name, SUM(amount_pico) FROM ledger_entries JOIN ledger_accounts "
                    "ON ledger_accounts.id = account_id GROUP BY name"
                )
            ).all()
        )
    assert sums["tenant:tenant1:receivable"] == sum(e.charge for e in events if e.tenant == "tenant1")
    assert sums["payable:openai"] == -sum(e.cost for e in events)


def test_a_request_that_cost_nothing_has_a_transaction_without_entries(database: Database, tmp_path: Path) -> None:
    deliver(database, tmp_path / "spool", event(attempt(1, Usage()), outcome="failed"))
    checked = verify(database, tmp_path / "spool")
    assert checked.ok, checked.problems
    assert (checked.transactions, checked.entries) == (1, 0)


BROKEN = {
    "every transaction sums to zero": lambda: (
        update(ledger_entries)
        .where(ledger_entries.c.amount_pico > 0)
        .values(amount_pico=ledger_entries.c.amount_pico + 1)
    ),
    "every finished request has its transaction": lambda: delete(ledger_transactions),
    "every usage transaction has its request": lambda: delete(usage_events),
    "every rated line is quantity x rate": lambda: update(rated_lines).values(rate=rated_lines.c.rate + 1_000_000),
    "every request is the sum of its rated lines": lambda: delete(rated_lines).where(
        rated_lines.c.meter == "reasoning"
    ),
    "every request is the sum of its attempts": lambda: update(attempts).values(reasoning=attempts.c.reasoning + 1),
    "usage and the receivable accounts agree": lambda: update(usage_events).values(tenant="somebody else"),
    "usage and the revenue accounts agree": lambda: (
        update(ledger_accounts).where(ledger_accounts.c.kind == "revenue").values(owner="another model")
    ),
    "usage and the cost accounts agree": lambda: update(attempts).values(provider="another"),
    "usage and the payable accounts agree": lambda: update(attempts).values(provider="another"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_verifying_finds_each_broken_rule(database: Database, tmp_path: Path, rule: str) -> None:
    deliver(database, tmp_path / "spool", event(), event())
    with transaction(database) as connection:
        connection.execute(BROKEN[rule]())
    checked = verify(database, tmp_path / "spool")
    assert not checked.ok
    assert rule in [problem.rule for problem in checked.problems]
    assert checked.as_dict()["ok"] is False


def test_entries_without_a_transaction_are_found(database: Database, tmp_path: Path) -> None:
    with transaction(database) as connection:
        connection.execute(insert(ledger_entries).values(transaction_id=99, account_id=1, amount_pico=5))
        connection.execute(insert(ledger_entries).values(transaction_id=99, account_id=2, amount_pico=-5))
    assert [problem.rule for problem in verify(database, tmp_path).problems] == ["every entry has its transaction"]


def test_an_orphaned_hold_is_found_unless_its_settle_waits_in_the_spool(database: Database, tmp_path: Path) -> None:
    folder, finished = tmp_path / "spool", event()
    hold = hold_of(finished)
    with transaction(database) as connection:
        connection.execute(
            insert(holds).values(
                request_id=hold.request_id, tenant="acme", key_id="k", key_name="", requested_model="", amount_pico=1,
                state="open", writer="gone", created_at=moment(time.time() - 2000), expires_at=moment(time.time() - 1000),
            )
        )  # fmt: skip
    assert [problem.rule for problem in verify(database, folder).problems] == ["no hold is orphaned"]
    spool = Spool.open(folder)
    spool.settle(finished)
    checked = verify(database, folder)
    assert checked.ok
    assert (checked.open_holds, checked.undelivered_records) == (1, 1)
    spool.close()


def test_a_long_spool_is_counted_without_keeping_it_in_memory(database: Database, tmp_path: Path) -> None:
    verify(database, tmp_path)  # what is made once, as compiled queries, is made before measuring
    spool = Spool.open(tmp_path)
    for _ in range(6000):
        spool.settle(event())
    tracemalloc.start()
    checked = verify(database, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    spool.close()
    assert checked.undelivered_records == 6000
    assert peak < 8_000_000


def test_amounts_near_the_end_of_64_bits_are_verified_without_overflow(database: Database, tmp_path: Path) -> None:
    from gateway.billing.cost import rate_usage
    from gateway.types import METERS, PriceList

    dear = PriceList(dict.fromkeys(METERS, 100000 * 10**12 - 7), "dear")
    usage = Usage(input=49_999_999)
    deliver(
        database,
        tmp_path / "spool",
        event(attempt(1, usage, cost=rate_usage(usage, dear), charge=rate_usage(usage, dear))),
    )
    checked = verify(database, tmp_path / "spool")
    assert checked.ok, checked.problems
    assert checked.charge_pico == 4_999_999_900_000_000_000 - 350


def test_rated_lines_keep_their_rate(database: Database, tmp_path: Path) -> None:
    finished = event()
    deliver(database, tmp_path / "spool", finished)
    with snapshot(database) as connection:
        rows = connection.execute(select(rated_lines).where(rated_lines.c.book == "charge")).all()
    assert {(row.meter, row.quantity, row.rate, row.amount_pico) for row in rows} == {
        (line.meter, line.quantity, line.rate, line.amount) for line in finished.attempts[0].charge.lines
    }
