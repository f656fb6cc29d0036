"""Sends what is in the outbox: at least once, under ids that stay, a tenant's events in order; gives up after three days.

A receiver that fails is asked again after 5 seconds, then 10, 20, up to an hour, a fifth more or less so that not all come at
once. One that does not answer is left alone until the next run. Destinations do not wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from gateway.catalog_outlets import AlertTargets, Endpoint, Outlets
from gateway.db.outbox import ALERTS, EMAIL, USAGE
from gateway.db.transaction import snapshot, transaction
from gateway.jobs.outbox import queries
from gateway.jobs.outbox.not_taken import NotTaken
from gateway.jobs.outbox.queries import Message
from gateway.jobs.runner import Context

if TYPE_CHECKING:
    from gateway.jobs.outbox.webhook import Poster

MOST_EVENTS = 100
MOST_MESSAGES = 50
DEADLINE_SECONDS = 15.0
"""How long a receiver has to answer."""
RUN_SECONDS = 60.0
"""A run ends then, so that it is seen how it goes; the next one goes on."""
FIRST_DELAY, LONGEST_DELAY = 5.0, 3600.0
GIVE_UP_SECONDS = 3 * 86_400.0
ONE, SEVERAL = "application/cloudevents+json", "application/cloudevents-batch+json"
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Sent:
    """What one run did."""

    events: int = 0
    failures: int = 0
    given_up: int = 0


def send_outbox(context: Context, deadline: float = DEADLINE_SECONDS) -> str | None:
    """Send what is due, to every destination at the same time; a receiver has `deadline` seconds. Raises Unavailable.

    What goes wrong with one destination is raised when the others are done.
    """
    with snapshot(context.database) as connection:
        names = queries.destinations(connection)
    if not names:
        return None
    sent = Sent()
    asyncio.run(_send_all(context, names, sent, deadline))
    if not sent.events and not sent.failures:
        return None
    return f"{sent.events} events sent, {sent.failures} messages not taken, {sent.given_up} given up"


def delay(attempts: int, retry_after: float | None = None) -> float:
    """Seconds until the next attempt after so many have failed."""
    pause: float = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20)) * random.uniform(0.8, 1.2)  # noqa: S311
    return max(pause, min(retry_after or 0.0, LONGEST_DELAY))


async def _send_all(context: Context, names: list[str], sent: Sent, deadline: float) -> None:
    # The gateway lists the jobs and does not run them: it needs neither of these in its memory.
    from gateway.jobs.outbox.webhook import Poster

    async def send(name: str) -> None:
        async with Poster(deadline) as poster:
            await _send_to(context, poster, name, sent)

    results = await asyncio.gather(*(send(name) for name in names), return_exceptions=True)
    for name, result in zip(names, results, strict=True):
        if isinstance(result, BaseException):
            logger.error("sending to %s has failed: %s", name, result)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _send_to(context: Context, poster: Poster, name: str, sent: Sent) -> None:
    """Send to one destination until nothing is due, or it does not answer."""
    ends_at = time.monotonic() + RUN_SECONDS
    most = MOST_EVENTS if name == USAGE else 1
    while time.monotonic() < ends_at:
        now = context.now()
        with transaction(context.database) as connection:
            queries.make_messages(connection, name, most, now, now + GIVE_UP_SECONDS)
            messages = queries.due_messages(connection, name, now, MOST_MESSAGES)
        if not messages:
            return
        for message in messages:
            if context.stop.is_set():
                return
            if not message.documents:  # another sender's, and taken
                with transaction(context.database) as connection:
                    queries.forget(connection, message.id)
                continue
            try:
                await _deliver(context, poster, message)
            except NotTaken as failure:
                _note(context, message, failure, sent)
                if failure.no_answer:
                    return
            else:
                with transaction(context.database) as connection:
                    queries.forget(connection, message.id)
                sent.events += len(message.documents)


async def _deliver(context: Context, poster: Poster, message: Message) -> None:
    """One attempt. Raises NotTaken."""
    kind, _, tenant = message.destination.partition("/")
    outlets, now = context.catalog.outlets, context.now()
    if kind == EMAIL:
        await _deliver_mail(context, message, _targets(outlets, tenant))
        return
    targets = _targets(outlets, tenant)
    endpoint: Endpoint | None = outlets.events if kind == USAGE else targets.webhook if targets else None
    if endpoint is None:
        raise NotTaken("this destination is no longer in the configuration")
    if kind == ALERTS:
        await poster.post(endpoint, message.id, ONE, message.documents[0].encode(), now)
    else:
        await poster.post(endpoint, message.id, SEVERAL, f"[{','.join(message.documents)}]".encode(), now)


async def _deliver_mail(context: Context, message: Message, targets: AlertTargets | None) -> None:
    from gateway.jobs.outbox.mail import send_mail

    mail = context.catalog.outlets.mail
    if mail is None or targets is None or not targets.email:
        raise NotTaken("this destination is no longer in the configuration")
    event = orjson.loads(message.documents[0])
    subject, text = event["data"]["subject"], event["data"]["text"]
    refused = await asyncio.to_thread(send_mail, mail, targets.email, subject, text, event["id"], context.now())
    if refused:
        logger.warning("the mail server refused %s, and took the mail for the others", ", ".join(refused))


def _targets(outlets: Outlets, tenant: str) -> AlertTargets | None:
    return outlets.tenants.get(tenant) if tenant else outlets.alerts


def _note(context: Context, message: Message, failure: NotTaken, sent: Sent) -> None:
    """Keep why it failed, and when it is tried again: never after its time, but then a last time."""
    now, gives_up_at = context.now(), message.gives_up_at.timestamp()
    dead = failure.final or now >= gives_up_at
    next_at = min(now + delay(message.attempts + 1, failure.retry_after), max(now, gives_up_at))
    with transaction(context.database) as connection:
        queries.note_failure(connection, message.id, str(failure), next_at, now if dead else None)
    sent.failures += 1
    sent.given_up += dead
    level = logging.ERROR if dead else logging.WARNING
    fate = "is given up; see `penstock events list`" if dead else f"is tried again in {next_at - now:.0f} s"
    logger.log(level, "message %s for %s was not taken (%s) and %s", message.id, message.destination, failure, fate)
