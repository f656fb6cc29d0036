"""Labels in SQL, on both databases: from the spool, replaced, waiting for their request, read for training, gone in time."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from gateway.billing.retention.queries import clear_explanations, delete_labels
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.label_tables import quality_labels, shadow_answers, waiting_feedback
from gateway.db.tables import dead_letters, moment
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict, UnknownRequest
from gateway.jobs.labels import WAIT_SECONDS, tend_labels
from gateway.jobs.runner import Context
from gateway.labels.queries import find_owner, labelled_traffic
from gateway.labels.shadows.desk import judge, list_pairs
from gateway.metering.dead import reason_of, without_texts
from gateway.metering.deliver import Deliverer
from gateway.metering.records import decode, encode
from gateway.metering.spool import Spool
from gateway.request_ids import new_request_id
from gateway.routed import RoutingRecord
from gateway.settings import read_settings
from gateway.types import UsageEvent
from gateway.verdicts import Feedback, Shadow, Texts, labels_for
from tests.builders import catalog, model
from tests.usage import event, hold_of

NOW = time.time()


def request(at: float = NOW - 60, **changes: Any) -> UsageEvent:
    """A finished request of acme that was scored."""
    routing = RoutingRecord(
        "default", "standard", "cost", None, "f1", b"\x01", 0.5, 0.9, (), ((0.5, 0.4, 0.6),) * 3, (10,) * 3, 100, 0,
        "small", "economy",
    )  # fmt: skip
    return event(
        **{"request_id": new_request_id(at), "started_at": at, "finished_at": at + 1, "routing": routing, **changes}
    )


def said(about: UsageEvent, score: float = 1.0, **changes: Any) -> Feedback:
    """A word of the tenant's own key."""
    made = Feedback(about.request_id, about.tenant, None, "default", "key_1", score, None, NOW)
    return dataclasses.replace(made, **changes)


def compared(about: UsageEvent, **changes: Any) -> Shadow:
    """The premium tier's answer, which was better."""
    made = Shadow(
        about.request_id, about.started_at, about.tenant, "default", "small", "economy", "req_s", "large", "premium", "exact",
        "compared", "shadow", 123, 10, 20, NOW, labels=labels_for("shadow", ("small", "economy"), ("large", "premium")),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def deliver(folder: Path, database: Database, *records: Any) -> None:
    """Bring records to SQL through a spool, as a gateway and its deliverer do."""
    spool = Spool.open(folder)
    for record in records:
        if isinstance(record, UsageEvent):
            spool.hold(hold_of(record))
            spool.settle(record)
        else:
            spool.say(record)
    spool.close()
    deliverer = Deliverer(folder, database)
    try:
        deliverer.deliver_once()
    finally:
        deliverer.close()


def rows(database: Database, table: Any) -> list[Any]:
    with snapshot(database) as connection:
        return list(connection.execute(select(table).order_by(*table.primary_key)))


def context(database: Database, now: float = NOW) -> Context:
    built: Catalog = catalog(model("small"))
    return Context(read_settings({}), built, database, now=lambda: now)


def test_what_is_said_comes_back_from_the_spool_as_it_was() -> None:
    about = request()
    texts = Texts("What?", "4\n2", "\u20ac", NOW + 60)
    for record in (
        said(about, 0.25, comment="good\n\0"),
        compared(about),
        compared(about, compare="human", texts=texts),
    ):
        assert decode(encode(record)) == record


def test_the_latest_word_of_an_author_counts_in_whatever_order_they_arrive(tmp_path: Path, database: Database) -> None:
    about = request()
    late, early = said(about, 0.0, given_at=NOW + 5), said(about, 1.0, given_at=NOW + 1)
    deliver(tmp_path, database, about, late, early, said(about, 0.5, author="key_2"))
    deliver(tmp_path, database, early, late, early)
    found = {row.author: row for row in rows(database, quality_labels)}
    assert {author: row.score for author, row in found.items()} == {"key_1": 0.0, "key_2": 0.5}
    label = found["key_1"]
    assert (label.request_id, label.started_at) == (about.request_id, moment(about.started_at))
    assert (label.tenant, label.policy, label.model, label.tier, label.source) == (
        "acme", "default", "small", "economy", "feedback",
    )  # fmt: skip
    assert rows(database, waiting_feedback) == []


def test_feedback_waits_for_its_request_and_the_job_finds_it(tmp_path: Path, database: Database) -> None:
    about, never = request(), request()
    deliver(tmp_path / "a", database, said(about, 0.25), said(about, 0.75, given_at=NOW + 1), said(never))
    assert [row.score for row in rows(database, waiting_feedback)] in ([0.75, 1.0], [1.0, 0.75])
    assert tend_labels(context(database)) is None
    deliver(tmp_path / "b", database, about)
    assert rows(database, quality_labels) == []
    assert tend_labels(context(database)) == "1 labels made"
    assert [row.score for row in rows(database, quality_labels)] == [0.75]
    assert [row.request_id for row in rows(database, waiting_feedback)] == [never.request_id]
    assert tend_labels(context(database, NOW + WAIT_SECONDS + 10)) == "1 words without a request dropped"
    assert rows(database, waiting_feedback) == []


@pytest.mark.parametrize("changes", [{"tenant": "rival"}, {"project": "web"}])
def test_a_word_about_somebody_elses_request_comes_to_nothing(
    tmp_path: Path, database: Database, changes: dict[str, Any]
) -> None:
    about = request(project="app")
    deliver(tmp_path, database, about, said(about, **changes))
    assert rows(database, quality_labels) == rows(database, waiting_feedback) == []
    deliver(tmp_path, database, said(about, project="app"))
    assert len(rows(database, quality_labels)) == 1


def test_a_request_that_nobody_answered_has_no_label_and_an_open_one_is_known(
    tmp_path: Path, database: Database
) -> None:
    failed = request(outcome="failed", model=None, tier=None, routing=None, error_code="provider_failed")
    deliver(tmp_path, database, failed, said(failed))
    assert rows(database, quality_labels) == rows(database, waiting_feedback) == []
    opened = request(project="app")
    spool = Spool.open(tmp_path / "open")
    spool.hold(dataclasses.replace(hold_of(opened), project="app"))
    deliverer = Deliverer(tmp_path / "open", database)
    deliverer.deliver_once()
    with snapshot(database) as connection:
        owner, other = find_owner(connection, opened.request_id), find_owner(connection, failed.request_id)
        assert find_owner(connection, new_request_id(NOW)) is None
        assert find_owner(connection, "no id") is None
    assert owner is not None
    assert (owner.tenant, owner.project, owner.model, owner.outcome) == ("acme", "app", None, None)
    assert other is not None
    assert (other.model, other.outcome) == (None, "failed")
    deliverer.close()
    spool.close()


def test_labelled_traffic_gives_each_label_with_its_routing_record(tmp_path: Path, database: Database) -> None:
    first, second, later = request(), request(NOW - 30), request(NOW + 3600)
    unscored = request(routing=None)
    requests = (first, second, later, unscored)
    words = [said(second, policy="other"), said(later), said(unscored)]
    deliver(tmp_path, database, *requests, compared(first), said(first, 0.5), *words)
    since, until = moment(NOW - 100), moment(NOW + 100)
    with snapshot(database) as connection:
        found = [
            (row.record.request_id, row.record.features, row.model, row.tier, row.score, row.source)
            for row in labelled_traffic(connection, None, since, until)
        ]
        named = [row.record.request_id for row in labelled_traffic(connection, "other", since, until)]
        theirs = list(labelled_traffic(connection, None, since, until, tenant="rival"))
    assert found == [
        (first.request_id, b"\x01", "large", "premium", 1.0, "exact"),
        (first.request_id, b"\x01", "small", "economy", 0.0, "exact"),
        (first.request_id, b"\x01", "small", "economy", 0.5, "feedback"),
        (second.request_id, b"\x01", "small", "economy", 1.0, "feedback"),
    ]
    assert named == [second.request_id]
    assert theirs == []


def test_a_shadow_answer_is_written_once_and_texts_go_in_time(tmp_path: Path, database: Database) -> None:
    about, judged, waits = request(), request(), request()
    texts = Texts("What?", "41", "42", NOW + 60)
    human: dict[str, Any] = {"compare": "human", "status": "waiting", "verdict": None, "labels": (), "texts": texts}
    pairs = [compared(each, **human) for each in (judged, waits)]
    deliver(tmp_path, database, compared(about), compared(about), *pairs)
    found = {row.request_id: row for row in rows(database, shadow_answers)}
    assert len(found) == 3
    assert (found[about.request_id].agreement, found[about.request_id].cost_pico) == (0.0, 123)
    assert found[about.request_id].answer_text is None
    answer = judge(database, judged.request_id, "tie", "anna", NOW, "acme")
    assert answer["verdict"] == "agree"
    with pytest.raises(Conflict, match="compared by anna"):
        judge(database, judged.request_id, "a", "bert", NOW, None)
    with pytest.raises(Conflict, match="only `human` pairs"):
        judge(database, about.request_id, "a", "anna", NOW, None)
    with pytest.raises(UnknownRequest):
        judge(database, judged.request_id, "a", "anna", NOW, "rival")
    assert list_pairs(database, None, 10, None, "rival")["pairs"] == []
    assert tend_labels(context(database, NOW + 30)) is None
    assert tend_labels(context(database, NOW + 61)) == "2 pairs' texts cleared"
    after = {row.request_id: row for row in rows(database, shadow_answers)}
    assert {row.prompt_text for row in after.values()} == {None}
    assert (after[judged.request_id].status, after[waits.request_id].status) == ("compared", "expired")
    for late in (judged, waits):
        with pytest.raises(Conflict):
            judge(database, late.request_id, "a", "anna", NOW, None)


def test_labels_go_with_the_requests_of_their_month_and_comments_with_the_explanations(
    tmp_path: Path, database: Database
) -> None:
    old = request(datetime(2026, 8, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    new = request()
    at = datetime.fromtimestamp(new.started_at, UTC)
    deliver(tmp_path, database, old, new, compared(old), compared(new), said(new, comment="too long"))
    with transaction(database) as connection:
        clear_explanations(connection, at - timedelta(hours=1), at + timedelta(hours=1))
    assert {row.comment for row in rows(database, quality_labels)} == {None}
    with transaction(database) as connection:
        delete_labels(connection, datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC))
    assert {row.request_id for row in rows(database, quality_labels)} == {new.request_id}
    assert {row.request_id for row in rows(database, shadow_answers)} == {new.request_id}
    assert rows(database, dead_letters) == []


SECRET = "the patient is Kowalski"


def test_dead_letters_hold_no_texts(tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    prompted, plain, far = request(), request(), 2**63
    assert prompted.routing is not None
    routing = dataclasses.replace(prompted.routing, prompt=SECRET)
    dear = dataclasses.replace(prompted, hold=far, routing=routing)
    texts = Texts(SECRET, SECRET, SECRET, NOW + 60)
    pair = compared(plain, compare="human", status="waiting", verdict=None, labels=(), texts=texts, input_tokens=far)
    word = said(plain, comment=SECRET, given_at=1e15)
    damaged = [encode(each).replace(b"Kowalski", b"kowalski") for each in (pair, word)]
    damaged.append(b"X" + damaged[0][1:])
    spool = Spool.open(tmp_path)
    for record in (dear, plain):
        spool.settle(record)
    spool.say(pair)
    spool.say(word)
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    with segment.open("ab") as file:
        file.write(b"".join(damaged))
    deliverer = Deliverer(tmp_path, database)
    done = deliverer.deliver_once()
    deliverer.close()
    letters = rows(database, dead_letters)
    assert (done.events, len(letters)) == (1, 6)
    for letter in letters:
        assert b"kowalski" not in letter.line.lower(), letter.line
        assert "Kowalski" not in letter.reason
    assert "Kowalski" not in caplog.text
    again = {type(record): record for letter in letters[:3] for record in [decode(letter.line)]}
    assert again[Shadow] == dataclasses.replace(pair, texts=None, status="expired")
    assert again[Feedback] == dataclasses.replace(word, comment=None)
    assert letters[3].line.startswith(damaged[0][:11])
    assert b"may hold texts" in letters[3].line


def test_a_line_without_texts_is_kept_byte_for_byte() -> None:
    finished = request()
    whole = [encode(record) for record in (finished, hold_of(finished), said(finished), compared(finished))]
    for line in (*whole, *(each.replace(b"acme", b"evil") for each in whole[:2]), b"nothing\n"):
        assert without_texts(line) == line


def test_why_a_database_refused_something_is_said_without_the_row() -> None:
    class Diagnosis:
        message_primary = "new row violates a check"

    class Origin(Exception):
        diag = Diagnosis()

    refused = IntegrityError("INSERT", {}, Origin(f"new row violates a check DETAIL: Failing row contains ({SECRET})"))
    assert reason_of(refused) == "IntegrityError: new row violates a check"
    assert reason_of(ValueError("too large")) == "ValueError: too large"
