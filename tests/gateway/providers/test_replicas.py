"""Which of several engines is asked: the conversation's own, unless it is busy or gone; over real sockets where it matters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gateway.catalog import build_catalog
from gateway.config import Config
from gateway.errors import ConfigError, ProviderTimeout, ProviderUnreachable
from gateway.providers.base import Call, Completion, EventStream, Provider
from gateway.providers.registry import build_providers
from gateway.providers.replicas import ALWAYS_OPEN, CALLS_PER_ENGINE, MOST_OPENINGS, Replicas, beginning
from tests.builders import catalog, model
from tests.gateway.providers.asking import COMPLETION, replies
from tests.gateway.providers.raw_upstream import raw_upstream

URLS = [f"http://10.0.0.{number}:8100/v1" for number in range(1, 6)]
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(COMPLETION)
) + COMPLETION
FULL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


class Nobody:
    """A provider that is never called."""

    async def complete(self, call: Call) -> Completion:
        raise AssertionError("only the choice among providers is looked at")

    async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
        raise AssertionError("only the choice among providers is looked at")

    async def close(self) -> None:
        pass


def nobody(_: str) -> Provider:
    return Nobody()


def call(text: str, *more: str, tenant: str = "acme", system: str = "Be brief.") -> Call:
    talk = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    talk += [{"role": "assistant" if place % 2 == 0 else "user", "content": each} for place, each in enumerate(more)]
    return Call(catalog(model("m", engine=URLS[0])).models[0], {"messages": talk}, "r", tenant)


def names(replicas: Replicas, asked: Call) -> list[str]:
    return [replica.name.decode() for replica in replicas.order(asked)]


def test_a_conversation_keeps_its_order_while_it_goes_on() -> None:
    replicas = Replicas(URLS, nobody)
    first = names(replicas, call("Tell me of turbines."))
    assert first == names(replicas, call("Tell me of turbines.", "They turn.", "And then?", "Still."))
    assert sorted(first) == URLS


def test_tenants_system_prompts_and_first_turns_are_spread() -> None:
    replicas = Replicas(URLS, nobody)
    chosen = Counter(names(replicas, call(f"Question {number}"))[0] for number in range(500))
    assert set(chosen) == set(URLS)
    assert max(chosen.values()) < 150
    alike = {beginning(tenant, call("x", system=system).body["messages"]) for tenant in "ab" for system in "cd"}
    assert len(alike) == 4


RULES = "Answer by these rules. " * 200


def test_a_long_system_prompt_is_read_by_one_engine_more_for_every_eight_calls() -> None:
    replicas, asked = Replicas(URLS, nobody), Counter[str]()
    for number in range(500):
        chosen = names(replicas, call(f"Question {number}", system=RULES))[0]
        asked[chosen] += 1
        assert len(asked) <= 1 + number // CALLS_PER_ENGINE
    assert set(asked) == set(URLS)
    assert max(asked.values()) < 150, "by then the load is spread"
    other = {names(replicas, call(f"Question {number}", system=RULES, tenant="other"))[0] for number in range(8)}
    assert len(other) == 1, "another tenant's is not cached anywhere yet"


def test_a_conversation_moves_at_most_to_an_engine_that_joins_for_its_system_prompt() -> None:
    replicas, homes = Replicas(URLS, nobody), dict[str, str]()
    moved = 0
    for number in range(200):
        talk = f"Talk {number % 20}"
        chosen = names(replicas, call(talk, *["again"] * (2 * (number // 20)), system=RULES))[0]
        joined = chosen not in homes.values()
        moved += homes.get(talk, chosen) != chosen
        assert number < 60 or joined or homes[talk] == chosen, "nobody moves once every engine has it"
        homes[talk] = chosen
    assert 0 < moved < 40


def test_openings_are_bounded_and_the_least_recently_used_starts_anew() -> None:
    replicas = Replicas(URLS, nobody)
    first, again = RULES + "first", RULES + "used"
    for number in range(100):
        for system in (first, again):
            names(replicas, call(f"Question {number}", system=system))
    for number in range(MOST_OPENINGS):
        names(replicas, call("x", system=f"{RULES}{number}"))
        if number % 1000 == 0:
            names(replicas, call("x", system=again))
    spread = [
        {names(replicas, call(f"More {number}", system=system))[0] for number in range(8)} for system in (first, again)
    ]
    assert len(spread[0]) == 1
    assert len(spread[1]) > 1


def test_taking_an_engine_away_moves_only_its_own_conversations() -> None:
    asked = [call(f"Question {number}") for number in range(200)]
    every, fewer = Replicas(URLS, nobody), Replicas(URLS[1:], nobody)
    for each in asked:
        before = names(every, each)[0]
        assert before == URLS[0] or names(fewer, each)[0] == before


def test_a_busy_engine_is_passed_over_for_the_next_of_the_same_order() -> None:
    replicas, asked = Replicas(URLS, nobody), call("Popular")
    usual = names(replicas, asked)
    busy = replicas.order(asked)[0]
    busy.calls = ALWAYS_OPEN - 1
    assert names(replicas, asked) == usual, "it computes so few together anyway"
    busy.calls = 40
    assert names(replicas, asked) == [*usual[1:], usual[0]]
    for replica in replicas.order(asked):
        replica.calls = 40
    assert names(replicas, asked) == usual, "all alike: nobody has too much"


@pytest.mark.parametrize("messages", [None, "text", [], [1, None], [{"role": "user", "content": {"odd": ["\ud800"]}}]])
def test_whatever_the_messages_are_there_is_an_order(messages: Any) -> None:
    asked = Call(catalog(model("m", engine=URLS[0])).models[0], {"messages": messages}, "r", "t\udcff")
    assert sorted(names(Replicas(URLS, nobody), asked)) == URLS


async def test_a_full_and_a_dead_engine_are_passed_over_and_a_dead_one_rests() -> None:
    async with raw_upstream(replies(FULL, FULL, FULL, FULL)) as full, raw_upstream(replies(*[ANSWER] * 8)) as well:
        made = catalog(model("m", engine=[full.base_url, "http://127.0.0.1:9/v1", well.base_url]))
        providers = build_providers(made, engine_url=None)
        await providers.open()
        entry = made.models[0]
        for number in range(4):
            body = {"messages": [{"role": "user", "content": f"Question {number}"}]}
            await providers.for_model(entry).complete(Call(entry, body, "r", "acme"))
        await providers.close()
    assert len(well.requests) == 4


async def test_an_engine_that_let_a_call_time_out_rests_and_the_call_fails() -> None:
    class Hung(Nobody):
        async def complete(self, call: Call) -> Completion:
            raise ProviderTimeout("no first token")

        async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
            raise ProviderTimeout("no first token")

    for how in ("complete", "stream"):
        replicas, asked = Replicas(URLS, lambda _: Hung()), call("Slow")
        [first, second, *_] = names(replicas, asked)
        with pytest.raises(ProviderTimeout):
            await (replicas.complete(asked) if how == "complete" else replicas.stream(asked, include_usage=True))
        assert names(replicas, asked)[0] == second
        assert names(replicas, asked)[-1] == first


async def test_when_none_answers_the_last_ones_error_is_told() -> None:
    made = catalog(model("m", engine=["http://127.0.0.1:9/v1", "http://127.0.0.1:1/v1"]))
    providers = build_providers(made, engine_url=None)
    await providers.open()
    entry = made.models[0]
    with pytest.raises(ProviderUnreachable):
        await providers.for_model(entry).complete(Call(entry, {"messages": []}, "r", "acme"))
    await providers.close()


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (["http://a/v1", "http://a/v1/"], "must name each engine once"),
        ([], "must name each engine once"),
        (["bundled", "http://a/v1"], "must start with http:// or https://"),
    ],
)
def test_a_list_that_cannot_be_is_refused(engine: list[str], says: str) -> None:
    entry = {"name": "m", "tier": "economy", "engine": engine, "price": {"input": 1, "output": 1}}
    with pytest.raises(ConfigError, match=says):
        build_catalog(Config.model_validate({"models": [entry]}), "penstock.yaml")
