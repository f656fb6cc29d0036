"""What the operator is told: dead letters, messages that were given up, books that do not agree; once until put right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from gateway.db.connect import Database
from gateway.db.job_tables import outbox_messages
from gateway.db.tables import dead_letters, ledger_entries
from gateway.db.transaction import transaction
from gateway.jobs.alerts.fire import Alert, fire
from gateway.jobs.alerts.listing import list_alerts
from gateway.jobs.alerts.operator import verify_books, watch
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.runner import Context
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.settings import read_settings
from tests.builders import catalog
from tests.receiver import SECRET, Receiver, running_receiver
from tests.usage import event


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def context(database: Database, receiver: Receiver, tmp_path: Path) -> Context:
    webhook = {"url": receiver.url, "secret": SECRET}
    built = catalog(alerts={"webhook": webhook}, events={"webhook": webhook})
    return Context(replace(read_settings({}), data_dir=tmp_path), built, database)


def deliver(context: Context, line: bytes | None = None, *, publish: bool = False) -> None:
    folder = context.settings.spool
    spool = Spool.open(folder)
    spool.settle(event())
    spool.close()
    if line is not None:
        (folder / "again.000001.spool").write_bytes(line)
    deliverer = Deliverer(folder, context.database, publish=publish)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


def told(context: Context) -> list[tuple[str, bool]]:
    """Alerts, oldest first, and whether they have ended."""
    rows = reversed(list_alerts(context.database)["alerts"])
    return [(row["kind"], row["ended_at"] is not None) for row in rows]


def test_a_dead_letter_is_told_once_and_again_after_it_was_put_right(context: Context, receiver: Receiver) -> None:
    assert watch(context) is None
    deliver(context, b"S 00000000 {}\n")
    assert watch(context) == "1 records could not be booked"
    assert watch(context) is None
    send_outbox(context)
    (alert,) = receiver.taken
    assert (alert["type"], alert["data"]["count"]) == ("penstock.alert.dead_letters", 1)
    assert "subject" not in alert, "it is of no tenant"
    with transaction(context.database) as connection:
        connection.execute(delete(dead_letters))
    assert watch(context) == "dead_letters: put right"
    deliver(context, b"S 00000000 {}\n")
    assert watch(context) == "1 records could not be booked"
    assert told(context) == [("dead_letters", True), ("dead_letters", False)]


def test_messages_that_were_given_up_are_told(context: Context, receiver: Receiver) -> None:
    receiver.answer = lambda delivery: 410
    deliver(context, publish=True)
    send_outbox(context)
    assert watch(context) == "1 messages to other systems were given up"
    with transaction(context.database) as connection:
        connection.execute(delete(outbox_messages))
    assert watch(context) == "events: put right"


def test_books_that_do_not_agree_are_told_with_the_rules_that_are_broken(context: Context, receiver: Receiver) -> None:
    deliver(context)
    assert verify_books(context) == "the books of 1 requests are right"
    assert told(context) == []
    with transaction(context.database) as connection:
        connection.execute(update(ledger_entries).values(amount_pico=ledger_entries.c.amount_pico + 1))
    assert str(verify_books(context)).startswith("BROKEN: every transaction sums to zero: 1 times; ")
    send_outbox(context)
    assert "every transaction sums to zero" in receiver.taken[0]["data"]["text"]
    with transaction(context.database) as connection:
        connection.execute(update(ledger_entries).values(amount_pico=ledger_entries.c.amount_pico - 1))
    verify_books(context)
    assert told(context) == [("books", True)]


def test_without_receivers_alerts_are_listed_all_the_same(context: Context) -> None:
    silent = Context(context.settings, catalog(), context.database)
    deliver(silent, b"S 00000000 {}\n")
    assert watch(silent) == "1 records could not be booked"
    assert told(silent) == [("dead_letters", False)]
    assert send_outbox(silent) is None


def test_pages_of_alerts_follow_each_other(context: Context) -> None:
    for percent in range(10):
        alert = Alert("budget", ("tenant:acme", "month", "2026-11", percent), "acme", "s", "t", {"percent": percent})
        with transaction(context.database) as connection:
            assert fire(connection, alert, None, 1_790_000_000.0 + percent // 2)
            assert not fire(connection, alert, None, 1_790_000_000.0), "it stands already"
    seen: list[int] = []
    before: str | None = None
    while True:
        page = list_alerts(context.database, 3, before)
        seen += [row["percent"] for row in page["alerts"]]
        if (before := page["next"]) is None:
            break
    assert sorted(seen) == list(range(10))
    assert [percent // 2 for percent in seen] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="is not the `next`"):
        list_alerts(context.database, 3, "2026")
    assert list_alerts(context.database, tenant="other")["alerts"] == []
