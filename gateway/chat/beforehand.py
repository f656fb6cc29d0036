"""Whether a request would be put to a model at all, found out without asking: no half of a comparison is paid for alone."""

from __future__ import annotations

from gateway.callers import Caller
from gateway.chat.complete import bound_costs, understand
from gateway.chat.request import ChatRequest
from gateway.chat.route import ask_for
from gateway.errors import NoCandidate
from gateway.routing.decide import decide_route
from gateway.services import Services


def check_askable(request: ChatRequest, caller: Caller, services: Services) -> None:
    """Decide as the sentence would, hold nothing and tell nobody.

    Raises UnknownModel, ModelNotAllowed, TierNotAllowed, InvalidValue or NoCandidate. Whether the money lasts is not looked at.
    """
    question = understand(request, caller, services)
    worst_costs = bound_costs(question, services).worst_costs(question.asked.models)
    if not decide_route(ask_for(question, worst_costs, services.routing), question.score).candidates:
        raise NoCandidate(f"No configured model may answer {request.model!r}.")
