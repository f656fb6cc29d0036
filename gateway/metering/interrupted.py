"""The usage event of a request whose process died: what its hold knew, and nothing charged (pure).

The upstream may have worked and may bill for it; nobody knows what, so nothing is invented. The row is there to be found,
and a settle record that turns up later replaces it.
"""

from __future__ import annotations

from gateway.types import PROCESS_DIED, Hold, UsageEvent


def interrupted_event(hold: Hold, now: float) -> UsageEvent:
    """What is known: who asked for what, when, and how much was held. It ends `now`, when this was found."""
    return UsageEvent(
        request_id=hold.request_id,
        tenant=hold.tenant,
        key_id=hold.key_id,
        key_name=hold.key_name,
        session_id=None,
        tags=(),
        requested_model=hold.requested_model,
        model=None,
        provider=None,
        tier=None,
        difficulty=None,
        artifact=None,
        decision="the gateway process ended before the reply did",
        explanation={},
        outcome="interrupted",
        error_code=PROCESS_DIED,
        streamed=False,
        disconnected=False,
        started_at=hold.created_at,
        finished_at=max(now, hold.created_at),
        seconds_to_first_token=None,
        overhead_seconds=0.0,
        hold=hold.amount,
        attempts=(),
        project=hold.project,
        end_user=hold.end_user,
    )
