"""Several senders and several destinations: none sends what is another's, or waits for what is wrong with another."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert

from gateway.db.connect import Database, connect
from gateway.db.job_tables import outbox_messages
from gateway.db.outbox import ALERTS, EMAIL, USAGE, Event, send_later
from gateway.db.tables import moment
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.outbox import queries
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.runner import Context
from gateway.settings import read_settings
from tests.blocked import wait_for_blocked
from tests.builders import catalog
from tests.gateway.jobs.test_outbox import START, receiver
from tests.receiver import SECRET, Receiver

__all__ = ["receiver"]


def test_two_senders_beside_each_other_make_one_message_of_the_same_events(postgres_url: str) -> None:
    one, other = connect(postgres_url), connect(postgres_url)
    with transaction(one) as connection:
        send_later(connection, USAGE, [Event(f"e{n}", "t", "acme", START, {}) for n in range(3)], START)
        send_later(connection, ALERTS, [Event("a", "t", None, START, {})], START)
    seen: list[list[int]] = []

    def make(database: Database) -> None:
        with transaction(database) as connection:
            for name in (ALERTS, USAGE):
                queries.make_messages(connection, name, 2, START, START + 60)
            seen.append([len(m.documents) for m in queries.due_messages(connection, USAGE, START, 10)])

    second = threading.Thread(target=make, args=(other,))
    with transaction(one) as connection:
        for name in (ALERTS, USAGE):
            queries.make_messages(connection, name, 2, START, START + 60)
        second.start()
        wait_for_blocked(one, or_end_of=second)
    second.join(10)
    with snapshot(one) as connection:
        found = [queries.due_messages(connection, name, START, 10) for name in (ALERTS, USAGE)]
    assert [[len(message.documents) for message in each] for each in found] == [[1], [2]], "the third waits behind them"
    assert seen == [[2]]
    one.close()
    other.close()


def test_what_is_wrong_with_one_message_does_not_keep_others_from_being_sent(
    database: Database, receiver: Receiver
) -> None:
    hook = {"webhook": {"url": receiver.url, "secret": SECRET}}
    mail = {"host": "127.0.0.1", "port": 1, "tls": "none", "from": "penstock@example.com"}
    built = catalog(alerts={**hook, "email": ["a@example.com"]}, events=hook, smtp=mail)
    empty = {"id": "msg_x", "destination": ALERTS, "tenant": "", "attempts": 0}
    times = {"created_at": moment(START), "next_at": moment(START), "gives_up_at": moment(START + 60)}
    with transaction(database) as connection:
        connection.execute(insert(outbox_messages).values(**empty, **times))  # its events were taken by another sender
        for name in (ALERTS, USAGE, EMAIL):  # a mail needs a subject
            send_later(connection, name, [Event(name, "t", None, START, {})], START)
    context = Context(read_settings({}), built, database, lambda: START)
    with pytest.raises(KeyError, match="subject"):
        send_outbox(context)
    assert sorted(told["id"] for told in receiver.taken) == [ALERTS, USAGE]
    with snapshot(database) as connection:
        assert queries.destinations(connection) == [EMAIL]
        assert [message["events"] for message in queries.messages(connection, 10)] == [1], "only the mail is left"
