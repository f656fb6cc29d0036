"""Whether a request would be put to a model at all, found out without asking: no half of a comparison is paid for alone."""

from __future__ import annotations

from gateway.callers import Caller
from gateway.chat.complete import bound_costs, conditions, score_difficulty
from gateway.chat.facts import read_facts
from gateway.chat.request import ChatRequest
from gateway.chat.resolve import resolve_model
from gateway.errors import NoCandidate
from gateway.limits.ladder import ladder_of
from gateway.routing.decide import decide_route
from gateway.services import Services


def check_askable(request: ChatRequest, caller: Caller, services: Services) -> None:
    """Decide as the sentence would, hold nothing and tell nobody.

    Raises UnknownModel, ModelNotAllowed, TierNotAllowed, InvalidValue or NoCandidate. Whether the money lasts is not looked at.
    """
    asked = resolve_model(request, caller, services.catalog)
    facts = read_facts(request)
    score = score_difficulty(request, caller, facts, services)
    prices = services.prices.current()
    bounds = bound_costs(request, caller, asked, facts, prices, ladder_of(caller), services)
    ask = conditions(request, caller, asked, facts, score, prices, bounds, services)
    if not decide_route(ask, score).candidates:
        raise NoCandidate(f"No configured model may answer {request.model!r}.")
