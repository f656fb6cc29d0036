"""Feedback on an answer: find whose request it is, then keep it in the spool; what is acknowledged is not lost.

SQL lags behind a moment, so a young id is looked for in the spool of this host as well, and waited for shortly. While the
database does not answer, feedback is taken without a look: whose the request is, is checked when it is delivered.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from gateway.callers import Caller, RateLimit, scope_of
from gateway.db.transaction import snapshot
from gateway.errors import InvalidValue, LimitExceeded, Unavailable, UnknownRequest
from gateway.labels.queries import Owner, find_owner, may_speak
from gateway.limits.refusals import refusal
from gateway.metering.queries import read_checkpoints
from gateway.metering.segments import records_about
from gateway.request_ids import received_at_of
from gateway.services import Services
from gateway.store.base import Claim, Refused
from gateway.store.windows import window
from gateway.types import Hold
from gateway.verdicts import Feedback, Shadow

YOUNG_SECONDS = 900.0
"""An id that is older has been metered, unless its delivery has stood still."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5)
"""Seconds between the looks for a young id that nobody knows: three seconds in all."""
AWAY = "look-ups of feedback"
AWAY_SECONDS = 1.0
"""After the database has not answered it is left alone for so long: threads that wait for it are few."""
MOST_OF_A_KEY = 16
"""Words of one key that may look for their request at a time in this process: each reads what the spool holds undelivered."""
MOST_AT_ONCE = 64
"""The same of all keys."""
PER_MINUTE = 1200
"""What a key may give, unless its own requests per minute are fewer: feedback has a counter of its own beside theirs."""

Found = Literal["stored", "waiting"]


@dataclass(frozen=True, slots=True)
class Taken:
    """`stored`: the request is in the ledger; `waiting`: it is on its way there. The feedback is kept in both cases."""

    status: Found
    comment_kept: bool


async def take_feedback(
    request_id: str, score: float, comment: str | None, caller: Caller, services: Services
) -> Taken:
    """Keep one word on one answer. Raises UnknownRequest, LimitExceeded or Unavailable; then nothing was kept."""
    await limit_feedback(caller, services)
    owner, status = await owner_of(request_id, caller, services)
    kept = comment is not None and services.routing.policies.of(caller.policy).keep_comments
    services.spool.say(
        Feedback(
            request_id=request_id,
            tenant=caller.tenant,
            project=caller.project,
            policy=caller.policy,
            author=caller.key_id,
            score=score,
            comment=comment if kept else None,
            given_at=time.time(),
        )
    )
    services.metrics.add("penstock_labels_total", ("feedback", owner.model if owner and owner.model else "unknown"))
    return Taken(status, kept)


async def limit_feedback(caller: Caller, services: Services) -> None:
    """Count this against the minute. Raises LimitExceeded, or Unavailable when the store does not answer."""
    now, scope = time.time(), scope_of("key", caller.tenant, caller.key_id)
    per_minute = [limit.limit for limit in caller.limits if (limit.kind, limit.per) == ("requests", "minute")]
    limit = RateLimit(scope, "requests", min([PER_MINUTE, *per_minute]))
    part = window("minute", now)
    claim = Claim(f"feedback/{part.label}/{scope}", 1, limit.limit, part.forget_at)
    answer = await services.store.reserve([claim])
    if isinstance(answer, Refused):
        services.metrics.add("penstock_limit_refusals_total", ("key", "feedback"))
        raise refusal(answer, limit, caller, now)


async def owner_of(request_id: str, caller: Caller, services: Services) -> tuple[Owner | None, Found]:
    """Whose request it is, if it is the caller's; None when nobody can say now. Raises UnknownRequest, for a request of
    somebody else as for one that does not exist and after the same time, and LimitExceeded when too many look already.
    """
    received_at = received_at_of(request_id)
    if received_at is None:
        raise _unknown(request_id)
    read: dict[str, int] = {}
    with ExitStack() as room:
        for number, pause in enumerate((*PAUSES, None)):
            if services.aside.paused(AWAY):
                return None, "waiting"
            try:
                owner = await asyncio.to_thread(_in_sql, request_id, services)
                if owner is not None and may_speak(caller.tenant, caller.project, owner):
                    if owner.outcome == "failed":
                        raise InvalidValue(
                            f"No model answered {request_id!r}, so there is nothing to judge.", param="request_id"
                        )
                    return owner, "stored" if owner.model else "waiting"
                if number == 0:
                    _take_room(room, caller, services)
                on_its_way = None
                if owner is None:
                    on_its_way = await asyncio.to_thread(_in_spool, request_id, read, services)
            except Unavailable:
                services.aside.pause(AWAY, AWAY_SECONDS)
                return None, "waiting"
            if on_its_way is not None and may_speak(caller.tenant, caller.project, on_its_way):
                return on_its_way, "waiting"
            if pause is None or time.time() - received_at > YOUNG_SECONDS:
                break
            await asyncio.sleep(pause)
    raise _unknown(request_id)


def _take_room(room: ExitStack, caller: Caller, services: Services) -> None:
    """Count among those that look for a request which SQL does not know as theirs. Raises LimitExceeded when it is full."""
    for topic, most in ((f"feedback {caller.key_id}", MOST_OF_A_KEY), ("feedback", MOST_AT_ONCE)):
        if not room.enter_context(services.aside.one_of(topic, most)):
            whose = f"of the key {caller.key_name!r} " if most == MOST_OF_A_KEY else ""
            raise LimitExceeded(
                f"{most} words {whose}wait for requests that are not known yet, which is the most. Send it again in a second.",
                headers={"retry-after": "1"},
            )


def _in_sql(request_id: str, services: Services) -> Owner | None:
    with snapshot(services.look_ups) as connection:
        return find_owner(connection, request_id)


def _in_spool(request_id: str, read: dict[str, int], services: Services) -> Owner | None:
    """From the end of a request that SQL does not have yet, or else from its hold; `read` is how far each segment has been
    looked through, and moves on.
    """
    if not read:
        with snapshot(services.look_ups) as connection:
            read |= read_checkpoints(connection)
    found = None
    for record in records_about(services.settings.spool, read, request_id.encode()):
        if isinstance(record, Feedback | Shadow) or record.request_id != request_id:
            continue
        if isinstance(record, Hold):
            found = Owner(record.tenant, record.project, None, None)
        else:
            return Owner(record.tenant, record.project, record.model, record.outcome)
    return found


def _unknown(request_id: str) -> UnknownRequest:
    return UnknownRequest(
        f"No request of this key's tenant has the id {request_id!r}. Send the `x-penstock-request-id` header of the answer, "
        "not the completion's own `id`, with a key of the tenant (and project) that made the request.",
        param="request_id",
    )
