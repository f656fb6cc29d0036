"""Tends labels: feedback that came before its request finds it or is given up, and texts of shadow answers go in time."""

from __future__ import annotations

from datetime import datetime

from gateway.db.tables import moment
from gateway.db.transaction import transaction
from gateway.jobs.runner import Context
from gateway.labels import queries
from gateway.labels.shadows.queries import forget_texts

BATCH = 500
WAIT_SECONDS = 86_400.0
"""Feedback whose request has not been metered after a day is dropped: there was none, or it was not theirs."""


def tend_labels(context: Context) -> str | None:
    """Make labels of feedback that waits, drop what has waited for a day, clear expired texts."""
    made = 0
    after: tuple[datetime, str, str] | None = None
    while not context.stop.is_set():
        with transaction(context.database) as connection:
            page = queries.waiting(connection, BATCH, after)
            left = {(each.request_id, each.author) for each in queries.label_feedback(connection, page)}
            done = [each for each in page if (each.request_id, each.author) not in left]
            queries.stop_waiting(connection, done)
        made += len(done)
        if len(page) < BATCH:
            break
        after = (moment(page[-1].given_at), page[-1].request_id, page[-1].author)
    now = context.now()
    with transaction(context.database) as connection:
        dropped = queries.give_up_waiting(connection, moment(now - WAIT_SECONDS))
        expired = forget_texts(connection, moment(now))
    said = ((made, "labels made"), (dropped, "words without a request dropped"), (expired, "pairs' texts cleared"))
    return ", ".join(f"{number} {what}" for number, what in said if number) or None
