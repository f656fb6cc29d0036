"""One request with what is known of it before anything is decided. Prices and policy are looked up once, so they are of one
moment whatever changes while it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.billing.prices.book import Prices
from gateway.callers import Caller, Terms
from gateway.catalog import Model
from gateway.chat.facts import Facts
from gateway.chat.request import ChatRequest
from gateway.chat.resolve import Asked
from gateway.config_policies import Policy
from gateway.limits.ladder import Ladder
from gateway.routing.affinity import LEAST_TOKENS, NO_CONVERSATION, Conversation, conversation_of
from gateway.routing.ask import Score
from gateway.types import PriceSheet
from gateway.value import value


@value
class Question:
    """What is asked, by whom, under which policy (with its `terms`), at which prices, within which limits (`ladder`)."""

    request: ChatRequest
    caller: Caller
    asked: Asked
    facts: Facts
    score: Score
    prices: Prices
    policy: Policy
    terms: Terms
    ladder: Ladder
    conversation: Conversation = NO_CONVERSATION


def conversation_in(
    request: ChatRequest, facts: Facts, models: Sequence[Model], prices: Prices, policy: Policy
) -> Conversation:
    """The conversation, where it can matter who has it in its prompt cache; marking it costs more the longer it is."""
    if not policy.affinity or facts.input_likely < LEAST_TOKENS:
        return NO_CONVERSATION
    equals = len({model.name for model in models}) < len(models)
    if not equals and not any(_saves(prices.costs[model.index]) for model in models):
        return NO_CONVERSATION
    return conversation_of(request.body, request.messages)


def _saves(cost: PriceSheet | None) -> bool:
    """Whether what is cached costs less, in money or in the time of an engine."""
    if cost is None:
        return False
    rates = cost.plain.rates
    return rates["cache_read"] < rates["input"] or rates["gpu_seconds"] > 0
