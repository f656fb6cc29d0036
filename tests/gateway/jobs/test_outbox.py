"""From a spool to a receiver that checks signatures: nothing lost, nothing under another id, order kept, given up visibly."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.db.connect import Database
from gateway.db.job_tables import outbox, outbox_messages
from gateway.db.transaction import snapshot
from gateway.errors import NotFound
from gateway.jobs.outbox import send
from gateway.jobs.outbox.listing import list_events, retry_events
from gateway.jobs.outbox.send import delay, send_outbox
from gateway.jobs.runner import Context
from gateway.metering.deliver import Deliverer
from gateway.metering.spool import Spool
from gateway.settings import read_settings
from gateway.types import Usage, UsageEvent
from tests.builders import catalog
from tests.receiver import SECRET, Receiver, running_receiver
from tests.usage import attempt, event

START = 1_790_000_000.0
Deliver = Callable[..., None]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def context_of(database: Database, url: str, clock: Clock) -> Context:
    built = catalog(events={"webhook": {"url": url, "secret": SECRET}})
    return Context(read_settings({}), built, database, clock)


def deliver(folder: Path, database: Database, *events: UsageEvent, publish: bool = True) -> None:
    spool = Spool.open(folder)
    for each in events:
        spool.settle(each)
    spool.close()
    deliverer = Deliverer(folder, database, publish=publish)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


def rows(database: Database) -> tuple[int, int]:
    """Events and messages in the outbox."""
    with snapshot(database) as connection:
        return tuple(connection.scalar(select(func.count()).select_from(t)) for t in (outbox, outbox_messages))  # type: ignore[return-value]


def test_a_delivered_request_reaches_the_receiver_with_its_buckets_and_exact_money(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    asked = event(project="web", end_user="bob", session_id="run-1", tags=("nightly",))
    deliver(tmp_path, database, asked)
    assert send_outbox(context_of(database, receiver.url, clock)) == "1 events sent, 0 messages not taken, 0 given up"
    (delivery,) = receiver.deliveries
    (told,) = delivery.events
    assert delivery.content_type == "application/cloudevents-batch+json"
    assert delivery.timestamp == int(START)
    assert (told["specversion"], told["id"], told["type"], told["source"], told["subject"]) == (
        "1.0",
        asked.request_id,
        "penstock.request.metered",
        "penstock",
        "acme",
    )
    data = told["data"]
    assert data["buckets"]["reasoning"] == 5
    assert (data["project"], data["end_user"], data["session_id"], data["tags"]) == ("web", "bob", "run-1", ["nightly"])
    assert data["charge_pico"] == asked.charge
    assert Decimal(data["charge_usd"]) * 10**12 == asked.charge
    assert sum(Decimal(amount) for amount in data["charge_usd_by_meter"].values()) * 10**12 == asked.charge
    assert rows(database) == (0, 0)


def test_without_a_subscriber_nothing_is_written(database: Database, tmp_path: Path) -> None:
    deliver(tmp_path, database, event(), publish=False)
    assert rows(database) == (0, 0)


def test_a_record_that_is_delivered_twice_is_told_once(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    asked = event()
    deliver(tmp_path, database, asked, asked)
    send_outbox(context_of(database, receiver.url, clock))
    deliver(tmp_path, database, asked)
    send_outbox(context_of(database, receiver.url, clock))
    assert [told["id"] for told in receiver.taken] == [asked.request_id]


def test_a_message_that_fails_is_sent_again_with_the_same_id_and_the_same_bytes(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    answers = iter([500, 503, 302, 400, 204])
    receiver.answer = lambda delivery: next(answers, 204)
    context = context_of(database, receiver.url, clock)
    deliver(tmp_path, database, first := event(), second := event())
    send_outbox(context)
    # More comes meanwhile; the message that is under way does not change, and what is new waits behind it.
    deliver(tmp_path, database, third := event())
    for wait in (6.5, 12.5, 24.5, 48.5):
        assert send_outbox(context) is None, "not before its time"
        clock.time += wait
        send_outbox(context)
    sent = receiver.deliveries
    assert len({(each.id, each.body) for each in sent[:5]}) == 1
    assert [each.timestamp for each in sent[:5]] == [int(START + t) for t in (0, 6.5, 19, 43.5, 92)]
    assert [each["id"] for each in sent[4].events] == [first.request_id, second.request_id]
    assert [each["id"] for each in sent[5].events] == [third.request_id]
    assert len(sent) == 6
    assert receiver.forged == 0
    assert rows(database) == (0, 0)


def test_one_tenants_refused_events_hold_up_no_other_tenant_and_order_is_kept(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    receiver.answer = lambda delivery: 400 if delivery.events[0]["subject"] == "bad" else 204
    asked = [event(tenant=tenant, request_id=f"{tenant}-{n:03d}") for n in range(120) for tenant in ("good", "bad")]
    deliver(tmp_path, database, *asked)
    send_outbox(context_of(database, receiver.url, clock))
    good = [told["id"] for told in receiver.taken if told["subject"] == "good"]
    assert good == [f"good-{n:03d}" for n in range(120)]
    bad = [delivery for delivery in receiver.deliveries if delivery.events[0]["subject"] == "bad"]
    assert [each["id"] for each in bad[0].events] == [f"bad-{n:03d}" for n in range(100)]
    assert len(bad) == 1, "what comes after it waits"
    listing = list_events(database)
    assert listing["unsent"] == {"events": 20}
    assert [(m["state"], m["tenant"], m["events"], m["error"]) for m in listing["messages"]] == [
        ("waiting", "bad", 100, "answered 400")
    ]


def test_a_receiver_that_hangs_is_given_up_after_the_deadline_and_left_alone_for_this_run(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    receiver.answer = lambda delivery: 204 if receiver.hang.wait(60) else 500
    deliver(tmp_path, database, event(tenant="one"), event(tenant="two"))
    context = context_of(database, receiver.url, clock)
    assert send_outbox(context, deadline=0.5) == "0 events sent, 1 messages not taken, 0 given up"
    assert len(receiver.deliveries) == 1
    (waiting,) = [m for m in list_events(database)["messages"] if m["attempts"]]
    assert waiting["error"].startswith("no answer")


def test_a_receiver_that_is_not_there_is_named_without_its_address(
    database: Database, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    deliver(tmp_path, database, event())
    send_outbox(context_of(database, f"http://127.0.0.1:{port}/token-in-the-path", clock))
    (message,) = list_events(database)["messages"]
    assert message["error"] == "no answer (ConnectError)"
    assert "message msg_" in caplog.text
    assert "token-in-the-path" not in caplog.text
    assert SECRET not in caplog.text


def test_what_is_never_taken_is_given_up_visibly_and_can_be_sent_again(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    receiver.answer = lambda delivery: 500
    context = context_of(database, receiver.url, clock)
    deliver(tmp_path, database, asked := event())
    runs = 0
    while not list_events(database, dead=True)["messages"]:
        send_outbox(context)
        clock.time += 3600 * 1.3
        runs += 1
        assert runs < 100
    assert clock.time - START >= send.GIVE_UP_SECONDS
    assert runs > 20
    (dead,) = list_events(database)["messages"]
    assert (dead["state"], dead["error"], list_events(database)["dead"]) == ("dead", "answered 500", 1)
    tried = len(receiver.deliveries)
    assert send_outbox(context) is None
    assert len(receiver.deliveries) == tried
    receiver.answer = lambda delivery: 204
    with pytest.raises(NotFound, match="'msg_unknown'"):
        retry_events(database, ["msg_unknown", dead["id"]], "tester", clock.time)
    assert list_events(database)["dead"] == 1, "nothing is changed by a wrong id"
    assert retry_events(database, None, "tester", clock.time) == [dead["id"]]
    send_outbox(context)
    assert receiver.deliveries[-1].id == dead["id"]
    assert [told["id"] for told in receiver.deliveries[-1].events] == [asked.request_id]
    assert rows(database) == (0, 0)


def test_a_receiver_that_says_gone_is_not_asked_again(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    receiver.answer = lambda delivery: 410
    deliver(tmp_path, database, event())
    assert send_outbox(context_of(database, receiver.url, clock)) == "0 events sent, 1 messages not taken, 1 given up"
    assert list_events(database)["messages"][0]["state"] == "dead"


def test_retry_after_is_respected(database: Database, receiver: Receiver, clock: Clock, tmp_path: Path) -> None:
    receiver.answer = lambda delivery: (429, {"retry-after": "600"})
    context = context_of(database, receiver.url, clock)
    deliver(tmp_path, database, event())
    send_outbox(context)
    receiver.answer = lambda delivery: 204
    clock.time += 599
    assert send_outbox(context) is None
    clock.time += 1
    assert send_outbox(context) == "1 events sent, 0 messages not taken, 0 given up"


def test_a_destination_that_is_no_longer_configured_keeps_its_events_in_sight(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    deliver(tmp_path, database, event())
    without = Context(read_settings({}), catalog(), database, clock)
    assert send_outbox(without) == "0 events sent, 1 messages not taken, 0 given up"
    assert "no longer in the configuration" in list_events(database)["messages"][0]["error"]
    clock.time += 10
    assert send_outbox(context_of(database, receiver.url, clock)) == "1 events sent, 0 messages not taken, 0 given up"


def test_large_events_are_split_over_messages(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    asked = [event(tags=("x" * 50_000,), request_id=f"large-{n}") for n in range(12)]
    deliver(tmp_path, database, *asked)
    send_outbox(context_of(database, receiver.url, clock))
    assert [told["id"] for told in receiver.taken] == [each.request_id for each in asked]
    assert len(receiver.deliveries) == 3
    assert max(len(each.body) for each in receiver.deliveries) < 300_000


def test_a_request_with_a_failed_attempt_is_told_with_all_it_was_charged(
    database: Database, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    failed = attempt(1, Usage(input=10), status="error", error_code="provider_failed")
    asked = event(failed, attempt(2, Usage(input=10, reasoning=7)))
    deliver(tmp_path, database, asked)
    send_outbox(context_of(database, receiver.url, clock))
    data: dict[str, Any] = receiver.taken[0]["data"]
    assert (data["attempts"], data["buckets"]["input"], data["buckets"]["reasoning"]) == (2, 20, 7)
    assert data["charge_pico"] == asked.charge


def test_delays_double_to_an_hour_and_never_come_all_at_once() -> None:
    for failures, expected in ((1, 5), (2, 10), (5, 80), (11, 3600), (1000, 3600)):
        drawn = {delay(failures) for _ in range(50)}
        assert min(drawn) >= 0.8 * expected
        assert max(drawn) <= 1.2 * expected
        assert len(drawn) > 10
    assert delay(1, retry_after=1e9) == 3600
