"""A gateway with a scripted upstream behind every kind of model, shared by the tests that talk to it as clients do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from gateway.db.connect import connect
from gateway.db.migrate import migrate
from tests.administering import CONFIG, Member
from tests.backends import PostgresServer, RedisServer
from tests.running import ADMIN_KEY, KEY, Gateway, Upstream, gateway, model, upstream

Client = Callable[..., openai.OpenAI]
_numbers = itertools.count()

TOKENS = {"input": 1000, "output": 300, "reasoning": 100, "cached": 400}
# 600 uncached x 1 + 400 cached x 0.1 + 200 visible x 2 + 100 reasoning x 4 USD per million
COST = Decimal("0.00144")
DEAR = {"input": 20, "output": 40}
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]

SCRIPTS: dict[str, Any] = {
    "small": {"reply": "The capital of France is Paris.", "tokens": TOKENS},
    "large": {"reply": "Paris, of course.", "tokens": TOKENS, "reasoning": "France, hm."},
    "broken": {"behaviour": "flaky", "fail_every": 1},
    "busy": {"behaviour": "rate_limited", "retry_after": 7},
    "cut": {"behaviour": "cut", "reply": "one two three four five six", "break_after": 3},
    "wrong": {"behaviour": "wrong_json", "break_after": 0},
    "rude": {"behaviour": "refuse"},
    "silent": {"reply": "no usage here", "usage": "omit"},
    "tools": {"tool_call": {"name": "look_up", "arguments": '{"city": "Paris"}'}},
    "slow": {"behaviour": "slow", "reply": "a b c d e f g h", "first_token_seconds": 0.05, "per_token_seconds": 0.1},
}


@pytest.fixture(scope="session")
def scripted() -> Iterator[Upstream]:
    with upstream(SCRIPTS) as running:
        yield running


@pytest.fixture(scope="session", params=["sqlite and memory", "postgresql and redis"])
def chat_gateway(
    scripted: Upstream, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    environment: dict[str, str] = {}
    if request.param == "postgresql and redis":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = f"chat_{next(_numbers)}"  # made again when tests are shared out so that another kind comes in between
        server.execute(f"CREATE DATABASE {name}")
        store: RedisServer = request.getfixturevalue("redis_server")
        environment = {"DATABASE_URL": server.url(name), "REDIS_URL": store.url}
        migrated = connect(environment["DATABASE_URL"])
        migrate(migrated)
        migrated.close()

    def at(name: str, tier: str, **changes: Any) -> dict[str, Any]:
        return model(name, tier, scripted.url, **changes)

    models = [
        at("small", "economy"),
        at("large", "premium", price={"input": 10, "output": 20}),
        at("standby", "standard", model="broken"),
        at("standby", "standard", model="small", weight=1),
        *(
            at(name, "deep", price=DEAR)
            for name in ("broken", "busy", "cut", "wrong", "rude", "silent", "tools", "slow")
        ),
        model("nowhere", "deep", "http://127.0.0.1:9/v1"),
    ]
    tenants = [{"name": "acme", "price_plan": {"markup_percent": 50}}, {"name": "poor", "budget": {"limit_usd": 0.001}}]
    keys = [
        {"key": KEY, "name": "test"},
        {"key": "sk-acme-0123456789", "name": "acme-app", "tenant": "acme"},
        {"key": "sk-poor-0123456789", "name": "poor-app", "tenant": "poor"},
        {"key": "sk-scoped-0123456789", "name": "scoped", "models": ["auto", "small"], "tiers": ["economy"]},
        {"key": "sk-limited-0123456789", "name": "limited", "limits": {"requests_per_minute": 2}},
    ]
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(
        folder, {"models": models, "keys": keys, "tenants": tenants, "max_body_bytes": 200_000}, **environment
    ) as started:
        yield started


@pytest.fixture
def client(chat_gateway: Gateway) -> Iterator[Client]:
    """Makes official clients of the gateway, closed at the end of the test."""
    opened: list[openai.OpenAI] = []

    def make(key: str = KEY, **options: Any) -> openai.OpenAI:
        opened.append(openai.OpenAI(base_url=chat_gateway.base_url, api_key=key, max_retries=0, timeout=30, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def admin_upstream() -> Iterator[Upstream]:
    with upstream({"m": {"reply": "Paris.", "tokens": {"input": 1000, "output": 300}}}) as running:
        yield running


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def admin_gateway(
    admin_upstream: Upstream, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    environment = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = f"admin_{next(_numbers)}"  # made again when tests are shared out so that another kind comes in between
        server.execute(f"CREATE DATABASE {name}")
        environment["DATABASE_URL"] = server.url(name)
        database = connect(environment["DATABASE_URL"])
        migrate(database)
        database.close()
    config = {**CONFIG, "models": [model("m", "economy", admin_upstream.url)]}
    with gateway(tmp_path_factory.mktemp("admin"), config, **environment) as started:
        yield started


@pytest.fixture(scope="session")
def admin(admin_gateway: Gateway) -> Member:
    """Whoever has the admin key of a gateway with two tenants."""
    return Member(admin_gateway, ADMIN_KEY)
