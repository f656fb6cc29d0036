"""The SQL of what artifacts are judged by: requests that `auto` routed, with cost and outcome, and labels of their answers.

Only requests that left the choice to a policy count: an artifact has no part in the others. Everything is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from gateway.db.label_tables import quality_labels
from gateway.db.routing_tables import SCORED, routing_records
from gateway.db.tables import usage_events

AT_A_TIME = 1000
CHOSEN = "standard"
"""The mode in which an artifact has a say: quick and deep requests go where they go whatever it thinks of them."""
_RECORD, _LABEL, _USAGE = routing_records.c, quality_labels.c, usage_events.c


@dataclass(frozen=True, slots=True)
class Routed:
    """A request of an artifact: what it cost at the providers (pico-USD), whether it failed, how long it took."""

    artifact: str
    cost: int
    failed: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Graded:
    """How good the answer was that a request of an artifact got: the mean of its labels, 0 to 1."""

    artifact: str
    score: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What an artifact thought of a request."""

    rank: float
    difficulty: float
    unfamiliar: bool
    input_tokens: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A label of some model's answer, and what was known of the request: quality per tier as it was predicted.

    `features` are those of `router_models.kept`, of the release that `fingerprint` names.
    """

    request_id: str
    at: datetime
    artifact: str
    tier: str
    score: float
    quality: tuple[float, ...]
    input_tokens: int
    unfamiliar: str
    fingerprint: str | None
    features: bytes | None


def requests_of(
    connection: Connection,
    policy: str,
    artifacts: Collection[str],
    since: datetime,
    until: datetime,
    at_most: int,
    newest: bool = False,
) -> Iterator[Routed]:
    """Finished requests of these artifacts, oldest first; of more than `at_most` the oldest, or the newest."""
    same = and_(_USAGE.request_id == _RECORD.request_id, _USAGE.started_at == _RECORD.started_at)
    order = _RECORD.started_at.desc() if newest else _RECORD.started_at
    query = (
        select(_RECORD.artifact, _USAGE.cost_pico, _USAGE.outcome, _USAGE.started_at, _USAGE.finished_at)
        .join_from(routing_records, usage_events, same)
        .where(*_routed(policy, since, until), _RECORD.artifact.in_(sorted(artifacts)), _RECORD.mode == CHOSEN)
        .where(_USAGE.outcome != "interrupted", _USAGE.started_at >= since, _USAGE.started_at < until)
        .order_by(order, _RECORD.request_id)
        .limit(at_most)
    )
    for row in connection.execute(query).yield_per(AT_A_TIME):
        seconds = (row.finished_at - row.started_at).total_seconds()
        yield Routed(row.artifact, row.cost_pico, row.outcome == "failed", max(0.0, seconds))


def grades_of(
    connection: Connection,
    policy: str,
    artifacts: Collection[str],
    sources: Collection[str],
    since: datetime,
    until: datetime,
    known_until: datetime,
    at_most: int,
) -> Iterator[Graded]:
    """Answers with labels, in the order in which they got their first; labels that came after `known_until` do not count."""
    labelled = and_(_LABEL.request_id == _RECORD.request_id, _LABEL.started_at == _RECORD.started_at)
    answered = and_(
        _USAGE.request_id == _RECORD.request_id, _USAGE.started_at == _RECORD.started_at, _USAGE.model == _LABEL.model
    )
    first = func.min(_LABEL.created_at)
    query = (
        select(_RECORD.artifact, func.avg(_LABEL.score).label("score"))
        .join_from(routing_records, quality_labels, labelled)
        .join(usage_events, answered)
        .where(*_routed(policy, since, until), _RECORD.artifact.in_(sorted(artifacts)), _RECORD.mode == CHOSEN)
        .where(_LABEL.source.in_(sorted(sources)), _LABEL.created_at <= known_until)
        .where(
            _USAGE.started_at >= since, _USAGE.started_at < until, _LABEL.started_at >= since, _LABEL.started_at < until
        )
        .group_by(_RECORD.request_id, _RECORD.artifact)
        .order_by(first, _RECORD.request_id)
        .limit(at_most)
    )
    for row in connection.execute(query).yield_per(AT_A_TIME):
        yield Graded(row.artifact, min(1.0, max(0.0, row.score)))


def facts_of(
    connection: Connection, policy: str, artifact: str, since: datetime, until: datetime, at_most: int
) -> Iterator[Facts]:
    """What an artifact thought of requests, the newest of them."""
    query = (
        select(_RECORD.rank, _RECORD.difficulty, _RECORD.unfamiliar, _RECORD.input_tokens)
        .where(*_routed(policy, since, until), _RECORD.artifact == artifact)
        .order_by(_RECORD.started_at.desc())
        .limit(at_most)
    )
    for row in connection.execute(query).yield_per(AT_A_TIME):
        yield Facts(row.rank, row.difficulty, bool(row.unfamiliar), row.input_tokens)


def first_request(
    connection: Connection, policy: str, artifact: str, since: datetime, until: datetime
) -> datetime | None:
    """When an artifact first routed a request of a policy within a time."""
    query = select(func.min(_RECORD.started_at)).where(*_routed(policy, since, until), _RECORD.artifact == artifact)
    found: datetime | None = connection.scalar(query)
    return found


def labels_of(
    connection: Connection,
    policy: str,
    sources: Collection[str],
    since: datetime,
    until: datetime,
    at_most: int,
    artifact: str | None = None,
) -> list[Judged]:
    """Labels of answers to requests of a time, newest first: of all models, also of answers nobody was sent."""
    labelled = and_(_LABEL.request_id == _RECORD.request_id, _LABEL.started_at == _RECORD.started_at)
    query: Select[tuple[object, ...]] = select(
        _RECORD.request_id, _RECORD.started_at, _RECORD.artifact, _LABEL.tier, _LABEL.score, _RECORD.input_tokens,
        _RECORD.unfamiliar, _RECORD.fingerprint, _RECORD.features, *(_RECORD[f"quality_{tier}"] for tier in SCORED),
    )  # fmt: skip
    query = query.join_from(routing_records, quality_labels, labelled)
    query = query.where(*_routed(policy, since, until), _LABEL.source.in_(sorted(sources)))
    query = query.where(_LABEL.started_at >= since, _LABEL.started_at < until)
    if artifact is not None:
        query = query.where(_RECORD.artifact == artifact)
    query = query.order_by(_RECORD.started_at.desc(), _RECORD.request_id).limit(at_most)
    return [
        Judged(
            request_id=row.request_id,
            at=row.started_at,
            artifact=row.artifact,
            tier=row.tier,
            score=min(1.0, max(0.0, row.score)),
            quality=tuple(getattr(row, f"quality_{tier}") for tier in SCORED),
            input_tokens=row.input_tokens,
            unfamiliar=row.unfamiliar,
            fingerprint=row.fingerprint,
            features=row.features,
        )
        for row in connection.execute(query)
    ]


def _routed(policy: str, since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    """Requests of a time that left the choice to a policy."""
    return (
        _RECORD.policy == policy,
        _RECORD.started_at >= since,
        _RECORD.started_at < until,
        _RECORD.mode.is_not(None),
    )
