"""A gateway's parts with scripted models, and requests of callers that a test puts together by hand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.api.wire.chat_request import parse_chat_request
from gateway.callers import Budget, Caller
from gateway.catalog import build_catalog
from gateway.chat.complete import Reply, complete_chat
from gateway.config import check_config
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.metering.deliver import Deliverer
from gateway.metering.records import decode
from gateway.request_ids import new_request_id
from gateway.services import Services, close_services, open_services
from gateway.settings import read_settings
from gateway.store.windows import budget_counter, window
from gateway.types import Hold, UsageEvent
from tests.builders import model

USD = 10**12
PLAIN = Caller("key_1", "app", "acme", project="web")
Ask = Callable[..., Awaitable[Reply]]

MODELS = [
    model("small", "economy", price={"input": 1, "output": 2}, max_output=50),
    model("large", "premium", price={"input": 10, "output": 20}, max_output=50),
    model("long", "deep", price={"input": 1, "output": 1}, max_output=3, script={"reply": "a b c d e f"}),
    model("broken", "deep", price={"input": 1, "output": 2}, script={"behaviour": "flaky", "fail_every": 1}),
    model("backup", "standard", price={"input": 3, "output": 6}),
]


@pytest.fixture(params=["memory", "redis"])
async def services(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Services]:
    config = {
        "models": MODELS,
        "policies": {
            "best": {"when_over_budget": "cheaper", "objective": "quality"},
            "thrifty": {"save_below": 0.5, "unfamiliar": "choose"},
        },
    }
    environment = {"PENSTOCK_DATA_DIR": str(tmp_path)}
    if request.param == "redis":
        environment["REDIS_URL"] = request.getfixturevalue("redis_url")
    settings = read_settings(environment)
    database = connect(settings.database(None))
    migrate(database)
    database.close()
    stop, delivering = threading.Event(), connect(settings.database(None))
    deliverer = Deliverer(settings.spool, delivering)
    thread = threading.Thread(target=deliverer.run, args=(stop,), kwargs={"poll_seconds": 0.05})
    thread.start()
    opened = await open_services(settings, build_catalog(check_config(config, "test"), "test"), None)
    yield opened
    await close_services(opened)
    stop.set()
    thread.join()
    deliverer.close()
    delivering.close()


@pytest.fixture
def ask(services: Services) -> Ask:
    """One request of a caller, answered whole (or streamed to its end)."""

    async def make(caller: Caller, content: str = "hello there", **body: Any) -> Reply:
        now = time.time()
        whole = {"model": "small", "messages": [{"role": "user", "content": content}], **body}
        request = parse_chat_request(
            json.dumps(whole).encode(),
            {},
            request_id=new_request_id(now),
            received_at=now,
            started=time.perf_counter(),
        )
        reply = await complete_chat(request, caller, services)
        if reply.events is not None:
            async for _ in reply.events:
                pass
            await reply.events.close()
        return reply

    return make


def records(services: Services) -> list[Hold | UsageEvent]:
    """What the spool holds, in order."""
    folder = services.settings.spool
    return [decode(line) for path in sorted(folder.glob("*.spool")) for line in path.read_bytes().splitlines()]


def budget(scope: str, limit: int, **changes: Any) -> Budget:
    return Budget(scope, limit, "day", **changes)


async def stands_at(services: Services, scope: str) -> int:
    [value] = await services.store.read([budget_counter(scope, "day", window("day", time.time()).label)])
    return value
