"""Asks the decision's candidates in order until one answers. Once a stream has its first event there is no way back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from gateway.chat.tab import Tab
from gateway.errors import BudgetExceeded, ContextTooLong, LimitExceeded, ProviderError, SessionBudgetExceeded
from gateway.providers.base import Call, Completion, EventStream
from gateway.routing.ask import Candidate
from gateway.routing.decide import replace_dear
from gateway.services import Services

OVER_BUDGET = (BudgetExceeded, SessionBudgetExceeded)


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered, since when (monotonic), and what: a whole completion or a stream with its first event."""

    candidate: Candidate
    started: float
    reply: Completion | EventStream


async def ask_candidates(tab: Tab, services: Services) -> Answered:
    """Hold money and call, candidate by candidate.

    Raises the last candidate's ProviderError when none answered, or the refusal of the first hold. A candidate that is
    refused alone, because its model has a limit or because others have failed before it, is passed over. When the budget
    refuses and the policy says so, cheaper models are tried, the dearest of them first.
    """
    failure: ProviderError | None = None
    refused: LimitExceeded | None = None
    too_dear: Candidate | None = None
    waiting = list(tab.decision.candidates)
    while waiting:
        candidate = waiting.pop(0)
        try:
            await tab.hold(candidate)
        except LimitExceeded as error:
            refused = refused or error
            if failure is None and too_dear is None and isinstance(error, OVER_BUDGET) and tab.may_be_cheaper:
                too_dear, waiting = candidate, cheaper_than(candidate, tab)
            elif failure is None and too_dear is None and not error.of_model:
                raise
            continue
        if too_dear is not None:
            tab.decision = replace_dear(tab.decision, too_dear, candidate)
        try:
            return await _ask(candidate, tab, services)
        except ProviderError as error:
            failure = error
            if not (error.try_next or _too_long(error)):
                break
    if failure is not None:
        raise failure
    assert refused is not None, "a decision without candidates is refused before"
    raise refused


def cheaper_than(candidate: Candidate, tab: Tab) -> list[Candidate]:
    """The other qualified candidates that would hold less, the dearest first: it is the nearest to what was chosen."""
    most = tab.held_for(candidate)
    qualified = (*tab.decision.candidates, *tab.decision.spare)
    return sorted((each for each in qualified if tab.held_for(each) < most), key=tab.held_for, reverse=True)


async def _ask(candidate: Candidate, tab: Tab, services: Services) -> Answered:
    """One candidate, repeated only for the errors its `retries.on` names."""
    retries, pause = candidate.model.retries, candidate.model.retries.backoff
    for repeat in range(retries.max + 1):
        try:
            return await _ask_once(candidate, tab, services)
        except ProviderError as error:
            if repeat == retries.max or error.retry_word not in retries.on:
                raise
            await asyncio.sleep(pause)
            pause *= 2
            await tab.hold(candidate)
    raise AssertionError("the last repeat returns or raises")


async def _ask_once(candidate: Candidate, tab: Tab, services: Services) -> Answered:
    model, request = candidate.model, tab.request
    provider = services.providers.for_model(model)
    call = Call(model, tab.body_for(model), request.request_id, tab.caller.tenant)
    started = time.perf_counter()
    try:
        reply: Completion | EventStream
        if request.stream:
            reply = await provider.stream(call, include_usage=request.include_usage)
        else:
            reply = await provider.complete(call)
    except ProviderError as error:
        tab.note(model, started, "error", error_code=error.code)
        tab.blame(model, error)
        raise
    finally:
        tab.upstream_seconds += time.perf_counter() - started
    return Answered(candidate, started, reply)


def _too_long(error: ProviderError) -> bool:
    """An upstream's refusal that a candidate with a larger context may not share."""
    return bool(error.body()["error"]["code"] == ContextTooLong.code)
