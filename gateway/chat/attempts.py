"""Asks the decision's candidates in order until one answers. Once a stream has its first event there is no way back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from gateway.chat.tab import Tab
from gateway.errors import ContextTooLong, LimitExceeded, ProviderError
from gateway.providers.base import Call, Completion, EventStream
from gateway.routing.ask import Candidate
from gateway.services import Services


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered, since when (monotonic), and what: a whole completion or a stream with its first event."""

    candidate: Candidate
    started: float
    reply: Completion | EventStream


async def ask_candidates(tab: Tab, services: Services) -> Answered:
    """Hold money and call, candidate by candidate.

    Raises the last candidate's ProviderError when none answered, or the refusal of the first hold. A later candidate
    that the budget does not allow is passed over: the upstream's error is then the truth.
    """
    failure: ProviderError | None = None
    for candidate in tab.decision.candidates:
        try:
            await tab.hold(candidate)
        except LimitExceeded:
            if failure is None:
                raise
            continue
        try:
            return await _ask(candidate, tab, services)
        except ProviderError as error:
            failure = error
            if not (error.try_next or _too_long(error)):
                break
    assert failure is not None, "a decision without candidates is refused before"
    raise failure


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
    call = Call(model=model, body=request.body, request_id=request.request_id)
    started = time.perf_counter()
    try:
        reply: Completion | EventStream
        if request.stream:
            reply = await provider.stream(call, include_usage=request.include_usage)
        else:
            reply = await provider.complete(call)
    except ProviderError as error:
        tab.note(model, started, "error", error_code=error.code)
        raise
    finally:
        tab.upstream_seconds += time.perf_counter() - started
    return Answered(candidate, started, reply)


def _too_long(error: ProviderError) -> bool:
    """An upstream's refusal that a candidate with a larger context may not share."""
    return bool(error.body()["error"]["code"] == ContextTooLong.code)
