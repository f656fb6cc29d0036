"""Who has the beginning of a prompt in its cache: conversations that go on, system prompts that others share, bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.affinity import AT_EACH_END, KEPT_SECONDS, LEAST_TOKENS, Affinity, conversation_of
from gateway.routing.decide import decide_route
from tests.builders import catalog, model
from tests.gateway.routing.test_decide import ask
from tests.gateway.routing.test_learning import Clock

SYSTEM = {"role": "system", "content": "You know these rules. " * 820}
SYSTEM_TOKENS = len(SYSTEM["content"]) // 4


@pytest.fixture
def clock() -> Clock:
    return Clock()


def turns(*texts: str) -> list[dict[str, Any]]:
    return [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text * 1000} for place, text in enumerate(texts)
    ]


def test_who_answered_a_conversation_is_remembered_for_its_next_turn(clock: Clock) -> None:
    affinity = Affinity(clock)
    begun = conversation_of({}, turns("hello "))
    affinity.answered("acme", begun, 1)
    going_on = conversation_of({}, turns("hello ", "yes ", "and? "))
    assert affinity.cached("acme", going_on) == {1: 1500}
    assert affinity.cached("other", going_on) == {}
    assert affinity.cached("acme", conversation_of({"tools": [{"name": "t"}]}, turns("hello ", "yes ", "and? "))) == {}
    assert affinity.cached("acme", conversation_of({}, turns("hallo ", "yes ", "and? "))) == {}
    clock.now += KEPT_SECONDS + 1
    assert affinity.cached("acme", going_on) == {}


def test_the_longest_part_that_was_answered_counts_and_short_ones_do_not(clock: Clock) -> None:
    affinity = Affinity(clock)
    affinity.answered("acme", conversation_of({}, turns("hello ")), 0)
    affinity.answered("acme", conversation_of({}, turns("hello ", "yes ", "and? ")), 1)
    longer = conversation_of({}, turns("hello ", "yes ", "and? ", "no ", "why? "))
    assert affinity.cached("acme", longer) == {1: 3750, 0: 1500}
    short = [{"role": "user", "content": "hi"}]
    affinity.answered("acme", conversation_of({}, short), 1)
    assert affinity.cached("acme", conversation_of({}, [*short, *turns("a", "b")])) == {}


def test_messages_differ_in_the_middle_of_parts_tool_calls_and_long_texts() -> None:
    def marks(**changes: Any) -> tuple[int, ...]:
        message = {"role": "user", "content": "x" * 20_000, **changes}
        return conversation_of({}, [message]).marks

    picture: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": "data:1"}},
        {"type": "text", "text": "what"},
    ]
    different = [
        marks(), marks(role="system"), marks(content="x" * 20_001), marks(content=picture), marks(content=None),
        marks(content=[*picture[:1], {"type": "text", "text": "who"}]), marks(tool_calls=[{"id": "1"}]),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert marks(content=picture) == marks(content=[dict(part) for part in picture])


def asking(question: str, **body: Any) -> Any:
    return conversation_of(body, [SYSTEM, {"role": "user", "content": question}])


def test_a_system_prompt_is_found_again_under_another_question(clock: Clock) -> None:
    affinity = Affinity(clock)
    affinity.answered("acme", asking("What is a mill?"), 1)
    assert affinity.cached("acme", asking("What is a river?")) == {1: SYSTEM_TOKENS}
    assert affinity.cached("acme", asking("What is a mill?")) == {1: SYSTEM_TOKENS + 3}, "the same once more"
    assert affinity.cached("other", asking("What is a river?")) == {}
    assert affinity.cached("acme", asking("What is a river?", cache_salt="bob")) == {}
    assert affinity.cached("acme", asking("What is a river?", tools=[{"type": "function"}])) == {}
    clock.now += KEPT_SECONDS - 1
    affinity.answered("acme", asking("What is a river?"), 1)
    clock.now += KEPT_SECONDS - 1
    assert affinity.cached("acme", asking("And a lake?")) == {1: SYSTEM_TOKENS}, "used meanwhile"
    assert affinity.cached("acme", asking("What is a mill?")) == {1: SYSTEM_TOKENS}, "its question was not"


def test_salts_that_are_no_texts_are_told_apart_and_do_no_harm(clock: Clock) -> None:
    affinity = Affinity(clock)
    for index, salt in enumerate([{"a": [1]}, ["a", 1], 7, "7", None]):
        affinity.answered("acme", asking("What?", cache_salt=salt), index)
    assert affinity.cached("acme", asking("Who?", cache_salt={"a": [1]})) == {0: SYSTEM_TOKENS}
    assert affinity.cached("acme", asking("Who?", cache_salt="7")) == {3: SYSTEM_TOKENS}
    assert affinity.cached("acme", asking("Who?")) == {4: SYSTEM_TOKENS}


def test_every_deployment_that_has_it_counts_each_as_far_as_it_has_it(clock: Clock) -> None:
    affinity = Affinity(clock)
    talk = [SYSTEM, {"role": "user", "content": "q" * 4000}]
    affinity.answered("acme", asking("Other"), 0)
    affinity.answered("acme", conversation_of({}, talk), 1)
    longer = conversation_of({}, [*talk, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}])
    assert affinity.cached("acme", longer) == {0: SYSTEM_TOKENS, 1: SYSTEM_TOKENS + 1000}


GROUP = catalog(model("m", base_url="a"), model("m", base_url="b"), model("m", base_url="c"), model("n", "premium"))


def test_load_is_spread_again_once_equal_deployments_share_a_beginning(clock: Clock) -> None:
    names = [each.name for each in GROUP.models]
    affinity, answers = Affinity(clock, names=names), [0, 0, 0]
    for number in range(2400):
        conversation = asking(f"Question {number}")
        cached = affinity.cached("acme", conversation, elsewhere=number % 8 == 0)
        asked = ask(GROUP, auto=False, input_tokens=SYSTEM_TOKENS, cached=cached, spread=number // 8)
        chosen = decide_route(replace(asked, models=GROUP.models[:3], worst_costs=(1, 1, 1)), None).candidates[0]
        affinity.answered("acme", conversation, chosen.model.index)
        answers[chosen.model.index] += 1
    assert min(answers) > 700, answers


def test_a_conversation_of_its_own_never_goes_elsewhere_and_other_models_do_not_count(clock: Clock) -> None:
    affinity = Affinity(clock, names=[each.name for each in GROUP.models])
    affinity.answered("acme", asking("What?"), 1)
    next_turn = conversation_of({}, [
        SYSTEM, {"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."},
        {"role": "user", "content": "Why?"},
    ])  # fmt: skip
    assert affinity.cached("acme", next_turn, elsewhere=True) == {1: SYSTEM_TOKENS + 1}
    assert affinity.cached("acme", asking("Who?"), elsewhere=True) == dict.fromkeys((0, 1, 2), SYSTEM_TOKENS)


def test_of_a_long_conversation_both_ends_are_remembered(clock: Clock) -> None:
    affinity = Affinity(clock)
    talk = [
        {"role": "user" if place % 2 == 0 else "assistant", "content": "x" * 4 * LEAST_TOKENS} for place in range(40)
    ]
    affinity.answered("acme", conversation_of({}, talk), 0)
    found = []
    for length in range(1, 41):
        cached = affinity.cached("acme", conversation_of({}, [*talk[:length], {"role": "user", "content": "new"}]))
        found.append(cached[0] // LEAST_TOKENS)
    assert found == [min(n, AT_EACH_END) if n <= 40 - AT_EACH_END else n for n in range(1, 41)]


def test_memory_is_bounded_and_a_beginning_in_use_outlives_questions(clock: Clock) -> None:
    affinity = Affinity(clock, most=4)
    for number in range(10):
        affinity.answered("acme", asking(f"Question {number}"), 0)
    again = [affinity.cached("acme", asking(f"Question {number}")) for number in range(10)]
    assert again == [{0: SYSTEM_TOKENS}] * 7 + [{0: SYSTEM_TOKENS + 2}] * 3
    for number in range(4):
        affinity.answered("acme", conversation_of({}, turns(f"talk {number} ")), 0)
    assert affinity.cached("acme", asking("Question 9")) == {}


TEXTS = ("a" * 2000, "b" * 2000, "c" * 9000)
messages = st.builds(
    lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), st.sampled_from(TEXTS)
)
prompts = st.tuples(
    st.sampled_from(["acme", "other"]), st.sampled_from([None, "salt"]), st.lists(messages, min_size=1, max_size=8)
)


@given(st.lists(st.tuples(prompts, st.integers(0, 2), st.integers(0, 200)), max_size=12), prompts)
def test_what_is_cached_is_the_longest_beginning_in_common_with_what_the_same_tenant_asked(
    history: list[tuple[Any, int, int]], prompt: Any
) -> None:
    clock = Clock()
    affinity = Affinity(clock)
    tenant, salt, talk = prompt
    moments = []
    for (whose, salted, said), index, pause in history:
        clock.now += pause
        affinity.answered(whose, conversation_of({"cache_salt": salted}, said), index)
        moments.append(clock.now)
    expected: dict[int, int] = {}
    for ((whose, salted, said), index, _), moment in zip(history, moments, strict=True):
        if (whose, salted) != (tenant, salt) or clock.now - moment > KEPT_SECONDS:
            continue
        alike = 0
        while alike < min(len(said), len(talk)) and said[alike] == talk[alike]:
            alike += 1
        tokens = sum(len(each["content"]) for each in talk[:alike]) // 4
        if tokens >= LEAST_TOKENS:
            expected[index] = max(expected.get(index, 0), tokens)
    assert affinity.cached(tenant, conversation_of({"cache_salt": salt}, talk)) == expected


def test_tools_nested_too_deeply_to_be_written_do_no_harm() -> None:
    tools: list[Any] = []
    for _ in range(1000):
        tools = [tools]
    assert len(conversation_of({"tools": tools}, turns("hello ")).marks) == 1
