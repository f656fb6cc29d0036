"""When a conversation is marked: only where it can matter who has it in its prompt cache, as marks cost time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.billing.prices.book import Prices
from gateway.chat.facts import read_facts
from gateway.chat.question import conversation_in
from gateway.config_policies import Policy
from gateway.routing.affinity import LEAST_TOKENS, Conversation
from tests.builders import catalog, model, sheets

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
