"""Shadow requests: after an answer has left, another tier is asked the same, and the two are compared.

They are requests of a key of the gateway itself: held in its budget, metered and booked like any other, and neither charged to
whoever asked nor counted against what that one may take. The client waits for none of it. What fails is noted; when the budget
is spent, the sample pauses.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from gateway.callers import Caller, Estimating, Terms
from gateway.catalog_shadow import shadow_key_id
from gateway.chat.beforehand import check_askable
from gateway.chat.complete import Reply, complete_chat
from gateway.chat.request import ChatRequest, Options
from gateway.chat.sampling import other_tier
from gateway.config_shadow import ShadowSampling
from gateway.errors import Forbidden, InvalidRequest, LimitExceeded, NotFound, PenstockError
from gateway.labels.judge import choice_of, combined, conversation, judge_body, said, shortened
from gateway.reasoning.answers import Answer, answer_of, same_answer
from gateway.request_ids import new_request_id
from gateway.services import Services
from gateway.types import TIERS, Attempt, Tier
from gateway.verdicts import Shadow, ShadowStatus, Texts, Verdict, labels_for

logger = logging.getLogger(__name__)
PAUSE_SECONDS = 60.0
"""After its budget has refused one, a sample asks nobody for so long: a refusal is metered, too."""
DAY = 86_400.0
_OWN_FIELDS = ("stream", "stream_options", "n", "user", "safety_identifier", "metadata", "store", "service_tier")
"""What says how the client wants its answer, or who it is; the other tier is not told."""
NOT_READ = Answer("")


@dataclasses.dataclass(frozen=True, slots=True)
class Original:
    """A request that has been answered."""

    request: ChatRequest
    caller: Caller
    rule: ShadowSampling
    model: str
    tier: str
    answer: Answer = NOT_READ


def follow(reply: Reply, services: Services) -> None:
    """Ask another tier what a sampled request asked, some time after its answer has left. Returns at once."""
    tab = reply.tab
    heard, event = tab.heard, tab.event
    if heard is None or event is None or event.outcome != "completed" or event.model is None or event.tier is None:
        return
    policy, tiers = tab.caller.policy, {model.tier for model in services.catalog.models}
    allowed = frozenset(tiers if tab.caller.tiers is None else tiers & tab.caller.tiers)
    tier = other_tier(event.tier, heard.rule, allowed)
    if not heard.fits(reply.body) or tier is None:
        _count(services, "same_tier" if heard.fits(reply.body) else "too_large")
    elif services.aside.paused(f"shadow {policy}"):
        _count(services, "budget")
    else:
        original = Original(tab.request, tab.caller, heard.rule, event.model, event.tier)
        if not services.aside.offer(
            partial(read_and_shadow, original, partial(heard.answer, reply.body), tier, services)
        ):
            _count(services, "busy")


async def read_and_shadow(original: Original, read: Callable[[], Answer | None], tier: str, services: Services) -> None:
    """The same once `read` has made an answer of its bytes, in a thread, as a long stream has many events."""
    answer = await asyncio.to_thread(read)
    if answer is not None:
        await shadow(dataclasses.replace(original, answer=answer), tier, services)


async def shadow(original: Original, tier: str, services: Services) -> None:
    """Ask, compare, and write down what came of it. Raises nothing that a caller would have to know."""
    payer = payer_for(original, services)
    if payer is None:
        _count(services, "not_allowed")
        return
    request = shadow_request(original.request, tier)
    try:
        check_askable(request, payer, services)
        if original.rule.judge is not None:  # with an answer like the one there is; the other one is not paid for yet
            ours = text_of(original.answer)
            check_askable(judge_request(original, ours, ours, services), payer, services)
        reply = await complete_chat(request, payer, services)
        asked = _Asked(request.request_id, reply)
        result = await compare(original, asked, payer, services)
        services.spool.say(result)
    except LimitExceeded:
        services.aside.pause(f"shadow {original.caller.policy}", PAUSE_SECONDS)
        _count(services, "budget")
    except (InvalidRequest, Forbidden, NotFound):
        _count(services, "not_allowed")
    except PenstockError as error:
        _count(services, "failed")
        # Without the message, in which an upstream may quote the prompt.
        logger.warning("a shadow request failed: %s (%d)", error.code, error.http_status)
    else:
        _tell(result, services)


def payer_for(original: Original, services: Services) -> Caller | None:
    """The sample's own key, limited to the models, tiers and places of the key that asked: no text goes where its own key, its
    request or its policy rules it out. Without counters nothing is asked.

    None when the policy has had no sample since the start.
    """
    caller, rule, places = original.caller, original.rule, original.caller.terms
    key = services.keys.own(shadow_key_id(rule.bill_to, caller.policy))
    if key is None:
        return None
    return dataclasses.replace(
        key,
        policy=caller.policy,
        models=caller.models,
        tiers=caller.tiers,
        terms=key.terms.and_(Terms(local_only=places.local_only, regions=places.regions)),
        estimating=Estimating(),
    )


def shadow_request(request: ChatRequest, name: str, body: dict[str, Any] | None = None) -> ChatRequest:
    """What a model or tier is asked: the same, or another `body` that came of it."""
    now = time.time()
    if body is None:
        body = {field: value for field, value in request.body.items() if field not in _OWN_FIELDS}
    body = {**body, "model": name}
    return dataclasses.replace(
        request,
        request_id=new_request_id(now),
        body=body,
        model=name,
        messages=body["messages"],
        stream=False,
        include_usage=False,
        options=own_options(request.options),
        end_user=None,
        beside=True,
        received_at=now,
        started=time.perf_counter(),
    )


def own_options(options: Options) -> Options:
    """A request's options without those that choose a model or name its owners; what limits where it may go stays."""
    chosen: dict[str, Any] = dict.fromkeys(("mode", "tier", "max_cost", "min_quality", "session_id", "user"))
    return dataclasses.replace(options, **chosen, tags=("shadow",))


class _Asked:
    """The other tier's answer and what everything about it has cost so far."""

    def __init__(self, request_id: str, reply: Reply) -> None:
        assert reply.body is not None, "shadow requests are never streams"
        self.request_id = request_id
        self.answer = answer_of(_payload(reply))
        last = reply.tab.attempts[-1]
        self.model = last.model
        self.attempts: list[Attempt] = list(reply.tab.attempts)
        self.input_tokens = last.usage.input_total
        self.output_tokens = last.usage.output_total


async def compare(original: Original, asked: _Asked, payer: Caller, services: Services) -> Shadow:
    """The answers compared as the policy says. A judge that fails leaves them uncompared, with its error."""
    rule, request, now = original.rule, original.request, time.time()
    group = services.catalog.groups[asked.model]
    status: ShadowStatus = "compared"
    verdict: Verdict | None = None
    error_code, texts = None, None
    if rule.compare == "human":
        status = "waiting"
        prompt, ours, theirs = conversation(request.messages), text_of(original.answer), text_of(asked.answer)
        texts = Texts(shortened(prompt), shortened(ours), shortened(theirs), now + rule.keep_days * DAY)
    elif rule.compare == "exact":
        verdict = await asyncio.to_thread(exactly, original, asked.answer, group[0].tier)
    else:
        try:
            verdict = await judged(original, asked, payer, services)
        except PenstockError as error:
            if isinstance(error, LimitExceeded):
                services.aside.pause(f"shadow {original.caller.policy}", PAUSE_SECONDS)
            status, error_code = "failed", error.code
    if verdict == "incomparable":
        status = "incomparable"
    tiers = (original.model, original.tier), (asked.model, group[0].tier)
    return Shadow(
        request_id=request.request_id,
        started_at=request.received_at,
        tenant=original.caller.tenant,
        policy=original.caller.policy,
        answered_model=original.model,
        answered_tier=original.tier,
        shadow_request_id=asked.request_id,
        model=asked.model,
        tier=group[0].tier,
        compare=rule.compare,
        status=status,
        verdict=verdict,
        cost=sum(attempt.cost.total for attempt in asked.attempts),
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        created_at=now,
        error_code=error_code,
        judge=rule.judge,
        labels=labels_for(verdict, *tiers) if verdict is not None else (),
        texts=texts,
    )


def exactly(original: Original, other: Answer, tier: Tier) -> Verdict:
    """Equal final answers agree; of two that differ, the stronger tier's is taken as right."""
    same = same_answer(original.answer, other)
    if same is None:
        return "incomparable"
    if same:
        return "agree"
    return "answer" if TIERS.index(original.tier) > TIERS.index(tier) else "shadow"


async def judged(original: Original, asked: _Asked, payer: Caller, services: Services) -> Verdict:
    """What the judge says of both orders; its calls are paid like the other tier's."""
    ours, theirs, choices = text_of(original.answer), text_of(asked.answer), []
    if not (ours and theirs):
        return "incomparable"
    for first, second in ((ours, theirs), (theirs, ours)):
        reply = await complete_chat(judge_request(original, first, second, services), payer, services)
        asked.attempts += reply.tab.attempts
        choices.append(choice_of(answer_of(_payload(reply)).text))
    return combined(*choices)


def judge_request(original: Original, first: str, second: str, services: Services) -> ChatRequest:
    """What the judge is asked, with the answers in this order."""
    judge = original.rule.judge
    assert judge is not None, "the configuration is refused without one"
    # The newer models of OpenAI refuse the older name.
    newer = any(model.provider == "openai" for model in services.catalog.groups.get(judge, ()))
    limit = "max_completion_tokens" if newer else "max_tokens"
    body = judge_body(conversation(original.request.messages), first, second, limit)
    return shadow_request(original.request, judge, body)


def text_of(answer: Answer) -> str:
    """An answer as a judge or a person reads it."""
    return said(answer.text, answer.calls)


def _payload(reply: Reply) -> dict[str, Any]:
    assert reply.body is not None, "shadow requests are never streams"
    payload: dict[str, Any] = orjson.loads(reply.body)
    return payload


def _tell(result: Shadow, services: Services) -> None:
    outcome: str = result.status
    if result.status == "compared":
        outcome = "agreed" if result.agreement else "differed"
    _count(services, outcome)
    for label in result.labels:
        services.metrics.add("penstock_labels_total", (result.compare, label.model))


def _count(services: Services, outcome: str) -> None:
    services.metrics.add("penstock_shadow_total", (outcome,))
