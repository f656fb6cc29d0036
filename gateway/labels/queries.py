"""The SQL of labels: write them, find the request that feedback is about, read labelled traffic for training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    null,
    or_,
    select,
    union_all,
)

from gateway.db.insert import among, insert_or_update
from gateway.db.label_tables import quality_labels, shadow_answers, waiting_feedback
from gateway.db.routing_tables import routing_records
from gateway.db.tables import holds, moment, usage_events
from gateway.request_ids import received_at_of
from gateway.verdicts import Feedback, Label, Source

_MILLISECOND = timedelta(milliseconds=1)
_LABEL = ("score", "comment", "created_at", "tier", "policy")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose request it is; `model` is the one that answered, None while it is open or when none did."""

    tenant: str
    project: str | None
    model: str | None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request's row of routing_records, and how good one model's answer to it was, by one source."""

    record: Row[Any]
    model: str
    tier: str
    score: float
    source: Source


def find_owner(connection: Connection, request_id: str) -> Owner | None:
    """Whose request this is, whether it is finished or still open; None when SQL does not know it."""
    received_at = received_at_of(request_id)
    if received_at is None:
        return None
    columns = ("tenant", "project")
    finished = select(*(usage_events.c[name] for name in columns), usage_events.c.model, usage_events.c.outcome).where(
        usage_events.c.request_id == request_id, *_arrived(received_at, received_at)
    )
    opened = select(*(holds.c[name] for name in columns), cast(null(), Text), cast(null(), Text)).where(
        holds.c.request_id == request_id, holds.c.state == "open"
    )
    rows = connection.execute(union_all(finished, opened)).all()
    return Owner(*max(rows, key=lambda row: row[3] is not None)) if rows else None


def keep_feedback(connection: Connection, given: Sequence[Feedback]) -> int:
    """Make labels of feedback; what is about a request that is not metered yet waits. Returns how much waits."""
    left = label_feedback(connection, given)
    changes = ("score", "comment", "given_at", "policy", "project", "tenant")
    insert_or_update(
        connection,
        waiting_feedback,
        [{**dataclasses.asdict(each), "given_at": moment(each.given_at)} for each in left],
        changes,
        lambda new: new.given_at >= waiting_feedback.c.given_at,
    )
    return len(left)


def label_feedback(connection: Connection, given: Sequence[Feedback]) -> list[Feedback]:
    """Make labels of feedback whose request is metered and was answered. Returns the rest.

    Feedback on a request of another tenant or project comes to nothing, as on one that does not exist.
    """
    latest: dict[tuple[str, str], Feedback] = {}
    for each in sorted(given, key=lambda each: each.given_at):
        latest[each.request_id, each.author] = each
    found = _metered(connection, [each.request_id for each in latest.values()])
    labels, left = [], []
    for each in latest.values():
        row = found.get(each.request_id)
        if row is None or (row.model is None and row.outcome != "failed"):
            left.append(each)
        elif row.model is not None and may_speak(each.tenant, each.project, Owner(row.tenant, row.project, row.model)):
            label = Label(row.model, row.tier or "", each.score)
            of = (each.request_id, row.started_at, each.tenant, each.policy)
            labels.append(label_row(*of, label, "feedback", each.author, each.given_at, each.comment))
    write_labels(connection, labels)
    return left


def may_speak(tenant: str, project: str | None, owner: Owner) -> bool:
    """Whether a key of this tenant and project may say how good the answer to a request was."""
    return owner.tenant == tenant and project in (None, owner.project)


def waiting(connection: Connection, at_most: int, after: tuple[datetime, str, str] | None = None) -> list[Feedback]:
    """Feedback whose request was not metered when it came, oldest first, behind a (time, request, author)."""
    columns = waiting_feedback.c
    query = select(waiting_feedback).order_by(columns.given_at, columns.request_id, columns.author).limit(at_most)
    if after is not None:
        at, request_id, author = after
        later = and_(columns.given_at == at, columns.request_id == request_id, columns.author > author)
        later = or_(columns.given_at > at, and_(columns.given_at == at, columns.request_id > request_id), later)
        query = query.where(later)
    return [
        Feedback(
            row.request_id,
            row.tenant,
            row.project,
            row.policy,
            row.author,
            row.score,
            row.comment,
            row.given_at.timestamp(),
        )
        for row in connection.execute(query)
    ]


def stop_waiting(connection: Connection, done: Sequence[Feedback]) -> None:
    """Take these out of what waits, unless a later word has come in their place."""
    columns = waiting_feedback.c
    same = (
        columns.request_id == bindparam("name"),
        columns.author == bindparam("who"),
        columns.given_at == bindparam("at"),
    )
    rows = [{"name": each.request_id, "who": each.author, "at": moment(each.given_at)} for each in done]
    if rows:
        connection.execute(delete(waiting_feedback).where(*same), rows)


def give_up_waiting(connection: Connection, before: datetime) -> int:
    """Drop feedback that has waited since before a moment; returns how much that was."""
    return connection.execute(delete(waiting_feedback).where(waiting_feedback.c.given_at < before)).rowcount


def label_row(
    request_id: str,
    started_at: datetime,
    tenant: str,
    policy: str,
    label: Label,
    source: Source,
    author: str,
    created_at: float,
    comment: str | None = None,
) -> dict[str, Any]:
    """The row of one label."""
    name = "\0".join((request_id, source, label.model, author)).encode("utf-8", "replace")
    return {
        "id": f"lbl_{hashlib.blake2b(name, digest_size=16).hexdigest()}",
        "request_id": request_id,
        "started_at": started_at,
        "tenant": tenant,
        "policy": policy,
        "model": label.model,
        "tier": label.tier,
        "source": source,
        "author": author,
        "score": label.score,
        "comment": comment,
        "created_at": moment(created_at),
    }


def write_labels(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Write labels; a later one of the same request, source, model and author replaces an earlier one."""
    rows = list({row["id"]: row for row in sorted(rows, key=lambda row: row["created_at"])}.values())
    insert_or_update(
        connection, quality_labels, rows, _LABEL, lambda new: new.created_at >= quality_labels.c.created_at
    )


def labels_of(connection: Connection, request_id: str, tenant: str | None = None) -> list[dict[str, Any]]:
    """All labels of a request, oldest first; with a tenant, only if it is that one's."""
    query = select(quality_labels).where(quality_labels.c.request_id == request_id)
    if tenant is not None:
        query = query.where(quality_labels.c.tenant == tenant)
    query = query.order_by(quality_labels.c.created_at, quality_labels.c.id)
    hidden = {"started_at"}
    return [
        {name: value for name, value in row.items() if name not in hidden}
        for row in connection.execute(query).mappings()
    ]


def labelled_traffic(
    connection: Connection, policy: str | None, since: datetime, until: datetime, *, tenant: str | None = None
) -> Iterator[Labelled]:
    """Labels of requests started in [since, until), each with its routing record, in the order of their start; streamed.

    Of one policy, or of all of them. Requests whose policy remembers nothing have no record and are left out.
    """
    at = quality_labels.c
    names = (at.model.label("label_model"), at.tier.label("label_tier"), at.score.label("label_score"), at.source)
    same = and_(routing_records.c.request_id == at.request_id, routing_records.c.started_at == at.started_at)
    query = (
        select(routing_records, *names)
        .join(quality_labels, same)
        .where(at.started_at >= since, at.started_at < until)
        .where(routing_records.c.started_at >= since, routing_records.c.started_at < until)
        .order_by(at.started_at, at.request_id, at.model, at.source, at.author)
    )
    if policy is not None:
        query = query.where(at.policy == policy)
    if tenant is not None:
        query = query.where(at.tenant == tenant)
    for row in connection.execution_options(yield_per=1000).execute(query):
        yield Labelled(row, row.label_model, row.label_tier, row.label_score, row.source)


def answer_lengths(
    connection: Connection, policy: str | None, since: datetime, until: datetime
) -> dict[tuple[str, str], int]:
    """Output tokens of labelled answers by request and model: of those that callers got, and of shadow answers.

    Without reasoning, which an artifact expects apart from the answer.
    """
    at, answered, shadow = quality_labels.c, usage_events.c, shadow_answers.c
    period = (at.started_at >= since, at.started_at < until, *(() if policy is None else (at.policy == policy,)))
    written = answered.output + answered.audio_output
    same = and_(answered.request_id == at.request_id, answered.started_at == at.started_at, answered.model == at.model)
    got = select(at.request_id, at.model, written).join(usage_events, same).where(*period)
    same = and_(shadow.request_id == at.request_id, shadow.model == at.model)
    own = usage_events.alias()
    thought = func.coalesce(own.c.reasoning, 0)
    sampled = select(at.request_id, at.model, shadow.output_tokens - thought).join(shadow_answers, same)
    sampled = sampled.outerjoin(own, own.c.request_id == shadow.shadow_request_id).where(*period)
    rows = (row for query in (sampled, got) for row in connection.execute(query))
    # Below zero where failed attempts thought as well: then nobody knows.
    return {(row[0], row[1]): row[2] for row in rows if (row[2] or 0) >= 0}


def _metered(connection: Connection, request_ids: Sequence[str]) -> dict[str, Any]:
    """The usage rows of these requests by id; their ids say in which months they are."""
    moments = [received for name in request_ids if (received := received_at_of(name)) is not None]
    if not moments:
        return {}
    columns = ("request_id", "started_at", "tenant", "project", "model", "tier", "outcome")
    query = select(*(usage_events.c[name] for name in columns)).where(
        among(connection, usage_events.c.request_id, request_ids), *_arrived(min(moments), max(moments))
    )
    return {row.request_id: row for row in connection.execute(query)}


def _arrived(first: float, last: float) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """An id knows its moment to the millisecond below; a row to the microsecond."""
    started = usage_events.c.started_at
    return started >= moment(first) - _MILLISECOND, started <= moment(last) + 2 * _MILLISECOND
