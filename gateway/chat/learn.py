"""What the router learns of a request: who was asked, how fast it was, that it has the conversation, what the key has had."""

from __future__ import annotations

from gateway.catalog import Model
from gateway.chat.question import Question
from gateway.routing.ask import Decision
from gateway.routing.conditions import UPPER_TIERS
from gateway.routing.knowledge import Knowledge
from gateway.types import Attempt


def learn_decision(question: Question, decision: Decision, known: Knowledge) -> None:
    """Take in who is asked, before the answer: requests that come at once must not all go up by one share."""
    known.health.chosen(decision.candidates[0])
    if question.asked.auto:
        known.unfamiliar.note(question.caller.key_id, decision.unfamiliar, question.policy.premium_window_seconds)


def learn_answer(
    question: Question, attempt: Attempt, model: Model, first_byte: float | None, known: Knowledge
) -> None:
    """Take in one good answer; `first_byte` is when a stream's first byte came, on the clock of `request.started`."""
    request, caller = question.request, question.caller
    called = request.started + attempt.started_at - request.received_at
    first_token = first_byte - called if first_byte is not None else None
    usage = attempt.usage
    known.health.answered(
        model.index, attempt.seconds, first_token, usage.output_total, usage.input_total, usage.cache_read
    )
    known.affinity.answered(caller.tenant, question.conversation, model.index)
    if question.asked.auto:
        known.shares.note(caller.key_id, model.tier in UPPER_TIERS, question.policy.premium_window_seconds)
