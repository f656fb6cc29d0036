"""What is known of a request is of one moment, and a conversation is marked only where it can matter who has it cached."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.billing.prices.book import Prices
from gateway.chat.complete import complete_chat
from gateway.chat.facts import read_facts
from gateway.chat.question import conversation_in
from gateway.config_policies import Policy
from gateway.request_ids import new_request_id
from gateway.routing.affinity import LEAST_TOKENS, Conversation
from gateway.routing.policies.change import set_policy
from gateway.services import Services
from tests.builders import catalog, model, sheets
from tests.gateway.chat.conftest import PLAIN

LONG = [{"role": "user", "content": "x" * 4 * LEAST_TOKENS}]
CACHED = model("cached", price={"input": 1, "output": 2, "cached_input": 0.1})
TIMED = model("timed", price={"gpu_second": 0.001})


def conversation(*models: dict[str, Any], messages: list[dict[str, Any]] = LONG, **policy: Any) -> Conversation:
    body = json.dumps({"model": "auto", "messages": messages}).encode()
    request = parse_chat_request(body, {}, request_id="req_00000000", received_at=0.0, started=0.0)
    built = catalog(*models)
    prices = Prices(sheets(built), {})
    return conversation_in(request, read_facts(request), built.models, prices, Policy(**policy))


@pytest.mark.parametrize("models", [[model("plain"), CACHED], [TIMED], [model("two"), model("two")]])
def test_a_long_conversation_is_marked_where_somebody_may_save_by_it(models: list[dict[str, Any]]) -> None:
    assert len(conversation(*models).marks) == 1


def test_it_is_not_where_nobody_saves_the_prompt_is_short_or_the_policy_looks_away() -> None:
    assert conversation(model("plain"), model("other", "premium")).marks == ()
    assert conversation(CACHED, messages=[{"role": "user", "content": "x" * 4000}]).marks == ()
    assert conversation(CACHED, affinity=False).marks == ()


async def test_a_request_ends_under_the_policy_it_began_with(services: Services) -> None:
    now = time.time()
    body = json.dumps({"model": "long", "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
    name = new_request_id(now)
    request = parse_chat_request(body, {}, request_id=name, received_at=now, started=time.perf_counter())
    reply = await complete_chat(request, PLAIN, services)
    set_policy(services.database, services.catalog, "default", {"remember": "nothing"}, actor="test", now=now)
    services.routing.policies.renew()
    assert reply.events is not None
    async for _ in reply.events:
        pass
    await reply.events.close()
    assert reply.tab.event is not None
    assert reply.tab.event.routing is not None
