"""The SQL of shadow answers: write them with their labels, list pairs that wait for a person, take a verdict, forget texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from gateway.db.insert import insert_missing
from gateway.db.label_tables import shadow_answers
from gateway.db.tables import moment
from gateway.labels.queries import label_row, write_labels
from gateway.verdicts import Shadow, Source, Verdict, labels_for

_FORGOTTEN = {"prompt_text": None, "answer_text": None, "shadow_text": None, "texts_expire_at": None}
PUBLIC = (
    "request_id", "started_at", "tenant", "policy", "answered_model", "answered_tier", "shadow_request_id", "model", "tier",
    "compare", "judge", "status", "verdict", "agreement", "cost_pico", "input_tokens", "output_tokens", "error_code",
    "created_at",
)  # fmt: skip

TELLING = ("answered_model", "answered_tier", "model", "tier", "input_tokens", "output_tokens", "cost_pico")
"""What would tell a person who wrote which answer."""


def keep_shadows(connection: Connection, shadows: Sequence[Shadow]) -> None:
    """Write shadow answers with the labels that follow from them. What arrives twice is written once."""
    once = {shadow.request_id: shadow for shadow in shadows}.values()
    insert_missing(connection, shadow_answers, [_row(shadow) for shadow in once])
    labels = []
    for shadow in once:
        source: Source = shadow.compare
        of = (shadow.request_id, moment(shadow.started_at), shadow.tenant, shadow.policy)
        labels += [label_row(*of, label, source, shadow.judge or "", shadow.created_at) for label in shadow.labels]
    write_labels(connection, labels)


def answer_comes_first(request_id: str) -> bool:
    """Whether the client's answer is shown as A: by the request's id, so that nobody learns the order."""
    return hashlib.blake2b(request_id.encode(), digest_size=1, person=b"pair").digest()[0] % 2 == 0


def page_of_pairs(
    connection: Connection, status: str | None, limit: int, after: tuple[datetime, str] | None, tenant: str | None
) -> list[dict[str, Any]]:
    """Shadow answers of a status (or all), oldest first, behind a (time, request). Pairs that wait have their texts."""
    columns = shadow_answers.c
    query = select(shadow_answers).order_by(columns.created_at, columns.request_id).limit(limit)
    if status is not None:
        query = query.where(columns.status == status)
    if tenant is not None:
        query = query.where(columns.tenant == tenant)
    if after is not None:
        at, request_id = after
        query = query.where(
            or_(columns.created_at > at, and_(columns.created_at == at, columns.request_id > request_id))
        )
    return [_shown(row) for row in connection.execute(query).mappings()]


def find_pair(connection: Connection, request_id: str, tenant: str | None) -> Any:
    """One shadow answer as a row, kept from everybody else until this transaction ends; None when there is none."""
    query = select(shadow_answers).where(shadow_answers.c.request_id == request_id).with_for_update()
    if tenant is not None:
        query = query.where(shadow_answers.c.tenant == tenant)
    return connection.execute(query).one_or_none()


def judge_pair(connection: Connection, row: Any, verdict: Verdict, author: str, now: float) -> None:
    """Keep a person's verdict on a pair and the labels that follow; the texts stay until they expire."""
    agreement = None if verdict == "incomparable" else float(verdict in ("agree", "neither"))
    status = "incomparable" if verdict == "incomparable" else "compared"
    connection.execute(
        update(shadow_answers)
        .where(shadow_answers.c.request_id == row.request_id)
        .values(status=status, verdict=verdict, agreement=agreement, judge=author)
    )
    labels = labels_for(verdict, (row.answered_model, row.answered_tier), (row.model, row.tier))
    of = (row.request_id, row.started_at, row.tenant, row.policy)
    write_labels(connection, [label_row(*of, label, "human", author, now) for label in labels])


def forget_texts(connection: Connection, now: datetime) -> int:
    """Clear texts that have expired; pairs that nobody judged are expired, too. Returns how many that were."""
    gone = shadow_answers.c.texts_expire_at <= now
    expired = connection.execute(
        update(shadow_answers).where(gone, shadow_answers.c.status == "waiting").values(status="expired", **_FORGOTTEN)
    ).rowcount
    return expired + connection.execute(update(shadow_answers).where(gone).values(**_FORGOTTEN)).rowcount


def _row(shadow: Shadow) -> dict[str, Any]:
    texts = shadow.texts
    row = {name: getattr(shadow, name) for name in PUBLIC if name not in ("started_at", "created_at", "cost_pico")}
    return {
        **row,
        "started_at": moment(shadow.started_at),
        "created_at": moment(shadow.created_at),
        "cost_pico": shadow.cost,
        "prompt_text": texts.prompt if texts else None,
        "answer_text": texts.answer if texts else None,
        "shadow_text": texts.shadow if texts else None,
        "texts_expire_at": moment(texts.expires_at) if texts else None,
    }


def _shown(row: Any) -> dict[str, Any]:
    """A pair that waits does not say who wrote what; a judged one does."""
    shown = {name: row[name] for name in PUBLIC}
    if row["status"] == "waiting":
        answers = (row["answer_text"], row["shadow_text"])
        first, second = answers if answer_comes_first(row["request_id"]) else answers[::-1]
        hidden = dict.fromkeys(TELLING)
        shown |= {
            **hidden,
            "prompt": row["prompt_text"],
            "a": first,
            "b": second,
            "texts_expire_at": row["texts_expire_at"],
        }
    return shown
