"""What the router learns of an answer: how fast the deployment was, that it has the conversation, and what the key has had."""

from __future__ import annotations

from gateway.callers import Caller
from gateway.catalog import Model
from gateway.chat.facts import Facts
from gateway.chat.request import ChatRequest
from gateway.services import Services
from gateway.types import Attempt


def learn_answer(
    request: ChatRequest,
    caller: Caller,
    facts: Facts,
    attempt: Attempt,
    model: Model,
    first_byte: float | None,
    services: Services,
) -> None:
    """Take in one good answer; `first_byte` is when a stream's first byte came, on the clock of `request.started`."""
    called = request.started + attempt.started_at - request.received_at
    first_token = first_byte - called if first_byte is not None else None
    services.routing.health.answered(model.index, attempt.seconds, first_token, attempt.usage.output_total)
    services.routing.affinity.answered(caller.tenant, facts.conversation, model.index)
    if request.model.partition(":")[0] == "auto":
        window = services.routing.policies.of(caller.policy).premium_window_seconds
        services.routing.shares.note(caller.key_id, model.tier, window)
