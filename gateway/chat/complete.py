"""The sentence: what happens to one chat request, in order. The order is policy and is stated only here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gateway.callers import Caller
from gateway.chat.attempts import Answered, ask_candidates
from gateway.chat.facts import read_facts
from gateway.chat.headers import decision_headers, price_headers
from gateway.chat.learn import learn_decision
from gateway.chat.question import Question, conversation_in
from gateway.chat.request import ChatRequest
from gateway.chat.resolve import resolve_model
from gateway.chat.route import ask_for
from gateway.chat.stream import Relay
from gateway.chat.tab import Bounds, Tab
from gateway.config_policies import Policy
from gateway.errors import ContextTooLong, NoCandidate, PenstockError
from gateway.limits.estimate import read_output, worst_case
from gateway.limits.ladder import ladder_of
from gateway.metering.normalise import reports_tokens
from gateway.money import PICO_PER_USD
from gateway.providers.base import Completion
from gateway.routing.ask import Ask, Decision, Score
from gateway.routing.decide import decide_route
from gateway.services import Services
from gateway.types import UNPRICED


@dataclass(frozen=True, slots=True)
class Reply:
    """What the door sends: headers, and either the whole body or the events of a stream."""

    headers: dict[str, str]
    body: bytes | None
    events: Relay | None
    tab: Tab


async def complete_chat(request: ChatRequest, caller: Caller, services: Services) -> Reply:
    """Answer one request. Raises a PenstockError for every way it can be refused or fail; what reached the hold is metered."""
    question = understand(request, caller, services)
    bounds = bound_costs(question, services)
    ask = ask_for(question, bounds.worst_costs(question.asked.models), services.routing)
    decision = decide(ask, question.score)
    learn_decision(question, decision, services.routing)
    tab = Tab(question, bounds, ask, decision, services)
    try:
        answered = await ask_candidates(tab, services)  # holds money, calls, falls back
        if isinstance(answered.reply, Completion):
            return await settle_plain(answered, answered.reply, tab)
    except PenstockError as error:
        await tab.close("failed", error)
        raise
    except BaseException:
        await tab.close("interrupted")
        raise
    headers = decision_headers(tab, answered.candidate) | tab.limit_headers()
    return Reply(headers, None, Relay(tab, answered), tab)


def understand(request: ChatRequest, caller: Caller, services: Services) -> Question:
    """What is asked for, how large and how hard it is; also for requests that name their model, so that the log can say what
    auto would do. Raises UnknownModel, ModelNotAllowed, TierNotAllowed or InvalidValue.
    """
    asked = resolve_model(request, caller, services.catalog)
    facts = read_facts(request)
    scorer = services.scorers.for_request(caller.policy, request.request_id)
    score = scorer.score_messages(request.messages, tools=facts.tools, json_schema=facts.json_schema)
    prices, rules = services.prices.current(), services.routing.policies.in_force(caller.policy)
    options = request.options
    ladder = ladder_of(caller, request.end_user, options.tags, options.session_id, request.body)
    conversation = conversation_in(request, facts, asked.models, prices, rules.policy)
    return Question(request, caller, asked, facts, score, prices, rules.policy, rules.terms, ladder, conversation)


def bound_costs(question: Question, services: Services) -> Bounds:
    """The most a call to each model can be charged: what a cost cap is checked with, and held unless less is agreed.

    At the dearest context tier the prompt can reach, and the dearest service tier unless the request names one. A model
    without a price now is left out, so that the decision rejects it, or is bounded by what the policy holds for it.
    """
    body, caller, facts, prices = question.request.body, question.caller, question.facts, question.prices
    share, strict, unpriced = caller.estimating.percentile, question.ladder.bounded, unpriced_hold(question.policy)
    worst, held, asked = {}, {}, read_output(body)
    for model in question.asked.models:
        if prices.costs[model.index] is None and unpriced is None:
            continue
        dearest = prices.charge(caller.tenant, model).dearest(facts.input_most, facts.service_tier)
        bound = worst_case(body, model, dearest, facts.prompt, asked=asked, strict=strict)
        if dearest.source == UNPRICED and unpriced is not None:
            bound = dataclasses.replace(bound, amount=unpriced)
        worst[model.index] = held[model.index] = bound
        if dearest.source == UNPRICED:
            continue
        likely = services.outputs.within(model.name, share) if share is not None else None
        if likely is not None:
            held[model.index] = worst_case(
                body, model, dearest, facts.prompt, asked=asked, strict=strict, likely=likely
            )
    return Bounds(worst, held)


def unpriced_hold(policy: Policy) -> int | None:
    """What is held for a call to a model without a price (pico-USD); None when it is refused."""
    return int(policy.unpriced_hold_usd * PICO_PER_USD) if policy.unpriced == "hold" else None


def decide(ask: Ask, score: Score) -> Decision:
    """The ordered candidates. Raises ContextTooLong or NoCandidate with the reason of every deployment."""
    decision = decide_route(ask, score)
    if not decision.candidates:
        reasons = "; ".join(f"{rejected.model}: {rejected.reason}" for rejected in decision.rejected)
        if decision.rejected and all("exceeds its context" in rejected.reason for rejected in decision.rejected):
            raise ContextTooLong(f"The request does not fit any model's context. {reasons}.", param="messages")
        raise NoCandidate(f"No configured model may answer this request. {reasons or 'No model is configured'}.")
    return decision


async def settle_plain(answered: Answered, completion: Completion, tab: Tab) -> Reply:
    """Meter a whole reply; the spool has it before the door sends the first byte."""
    model = answered.candidate.model
    written, reasoned = (0, 0) if reports_tokens(completion.raw_usage) else count_characters(completion.payload)
    tab.note(
        model,
        answered.started,
        "ok",
        raw_usage=completion.raw_usage,
        service_tier=completion.payload.get("service_tier"),
        output_characters=written,
        reasoning_characters=reasoned,
    )
    event = await tab.close("completed")
    headers = decision_headers(tab, answered.candidate) | price_headers(tab, event) | tab.limit_headers(event)
    return Reply(headers, completion.body, None, tab)


def count_characters(payload: dict[str, Any]) -> tuple[int, int]:
    """Characters the model wrote, and how many of them are reasoning: for the estimate when no usage was reported."""
    written = reasoned = 0
    for choice in payload["choices"]:
        message = choice["message"]
        reasoning = _length(message.get("reasoning_content") or message.get("reasoning"))
        calls = message.get("tool_calls")
        tools = len(str(calls)) if calls else 0
        written += _length(message.get("content")) + reasoning + tools
        reasoned += reasoning
    return written, reasoned


def _length(text: object) -> int:
    return len(text) if isinstance(text, str) else 0
