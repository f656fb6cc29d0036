"""Pairs for people to judge: a page of them, and one verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from gateway.db.audit import Change, write_audit
from gateway.db.connect import Database
from gateway.db.transaction import snapshot, transaction
from gateway.errors import Conflict, UnknownRequest
from gateway.labels.shadows import queries
from gateway.verdicts import Verdict

Choice = Literal["a", "b", "tie", "neither"]


def list_pairs(
    database: Database, status: str | None, limit: int, after: str | None, tenant: str | None
) -> dict[str, Any]:
    """A page of shadow answers, oldest first; `next` is the `after` of the following one. Raises ValueError for `after`."""
    with snapshot(database) as connection:
        pairs = queries.page_of_pairs(connection, status, limit + 1, _place(after), tenant)
    more, pairs = len(pairs) > limit, pairs[:limit]
    last = pairs[-1] if more else None
    return {"pairs": pairs, "next": f"{last['created_at'].isoformat()}~{last['request_id']}" if last else None}


def judge(
    database: Database, request_id: str, choice: Choice, author: str, now: float, tenant: str | None
) -> dict[str, Any]:
    """Keep a person's verdict; the same person may change it while the texts are there.

    Raises UnknownRequest, or Conflict when the pair is not for people or somebody else has judged it.
    """
    with transaction(database) as connection:
        row = queries.find_pair(connection, request_id, tenant)
        if row is None:
            raise UnknownRequest(f"No shadow answer belongs to a request {request_id!r}.", param="request_id")
        if row.compare != "human":
            raise Conflict(
                f"The answers to {request_id!r} are compared by {row.compare!r}; only `human` pairs are judged."
            )
        if row.status != "waiting" and not (row.judge == author and row.answer_text is not None):
            by = f" by {row.judge}" if row.judge else ""
            raise Conflict(f"The pair of {request_id!r} is {row.status}{by} and takes no verdict any more.")
        verdict = _verdict(choice, queries.answer_comes_first(request_id))
        queries.judge_pair(connection, row, verdict, author, now)
        after = {"choice": choice, "verdict": verdict}
        write_audit(connection, author, now, Change("shadow.judge", request_id, row.tenant, after=after))
    models = {"answered_model": row.answered_model, "model": row.model}
    return {"request_id": request_id, "verdict": verdict, **models}


def _verdict(choice: Choice, answer_first: bool) -> Verdict:
    if choice in ("tie", "neither"):
        return "agree" if choice == "tie" else "neither"
    return "answer" if (choice == "a") == answer_first else "shadow"


def _place(after: str | None) -> tuple[datetime, str] | None:
    if after is None:
        return None
    at, _, request_id = after.partition("~")
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is None or not request_id:
        raise ValueError(f"{after!r} is not the `next` of a page.")
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment), request_id
