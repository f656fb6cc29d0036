"""What the bundled engine is told beside the client's request: whose it is, and no place ahead of others."""

from __future__ import annotations

import json
from typing import Any

from gateway.providers.base import Call
from gateway.providers.registry import build_providers
from tests.builders import catalog, model
from tests.gateway.providers.asking import COMPLETION, replies
from tests.gateway.providers.raw_upstream import raw_upstream

PLAIN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(COMPLETION)
) + COMPLETION


async def sent(*asked: tuple[str, dict[str, Any]], engine: str = "bundled") -> list[dict[str, Any]]:
    """The bodies that arrive at an engine for requests of tenants."""
    async with raw_upstream(replies(PLAIN)) as upstream:
        where = {"engine": "bundled", "weights": "any"} if engine == "bundled" else {"engine": upstream.base_url}
        made = catalog(model("m", **where))
        providers = build_providers(made, engine_url=upstream.base_url)
        await providers.open()
        entry = made.models[0]
        for tenant, fields in asked:
            body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], **fields}
            await providers.for_model(entry).complete(Call(entry, body, "r", tenant))
        await providers.close()
        return [json.loads(request.body) for request in upstream.requests]


async def test_tenants_have_salts_of_their_own_which_no_request_can_choose() -> None:
    first, again, divided, other, forged = await sent(
        ("acme", {}),
        ("acme", {}),
        ("acme", {"cache_salt": "a"}),
        ("globex", {}),
        ("globex", {"cache_salt": "acme"}),
    )
    assert first["cache_salt"] == again["cache_salt"]
    assert len({body["cache_salt"] for body in (first, divided, other, forged)}) == 4
    assert "acme" not in first["cache_salt"]


async def test_a_request_cannot_put_itself_before_others() -> None:
    [body] = await sent(("acme", {"priority": -100, "temperature": 0}))
    assert "priority" not in body
    assert body["temperature"] == 0


async def test_other_engines_get_the_request_as_it_is() -> None:
    [body] = await sent(("acme", {"priority": -1, "cache_salt": "mine"}), engine="other")
    assert (body["priority"], body["cache_salt"]) == (-1, "mine")
