"""Routing policies of a running gateway: a change is seen in where the traffic goes; so are health, affinity and places."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.administering import Member, member, until
from tests.running import ADMIN_KEY, KEY, Gateway, Upstream, gateway, model, upstream

PLACES_KEY, SHARE_KEY, WORDY_KEY = "sk-places-0123456789", "sk-share-0123456789", "sk-wordy-0123456789"
QUESTIONS = [
    "What is the capital of France?", "Who wrote Hamlet?", "Explain quantum entanglement to a child.",
    "Write a haiku about autumn.", "If a train travels 60 miles in 1.5 hours, what is its average speed?",
]  # fmt: skip


@pytest.fixture(scope="module")
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    shaky = {"behaviour": "flaky", "fail_first": 3, "reply": "again"}
    sluggish = {"reply": "one two three", "first_token_seconds": 0.4}
    with (
        upstream({"small": {"reply": "s"}, "shaky": shaky, "sluggish": sluggish}) as one,
        upstream({"large": {"reply": "l"}}) as two,
    ):
        yield one, two


@pytest.fixture(scope="module")
def running(upstreams: tuple[Upstream, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    one, two = upstreams
    models = [
        model("small", "economy", one.url, price={"input": 0.3, "output": 0.4}, regions=["us"]),
        model("warm", "economy", one.url, model="small", price={"input": 0.4, "output": 0.4, "cached_input": 0.01}),
        model("large", "premium", two.url, price={"input": 5, "output": 20}, regions=["eu"], local=True),
        model("sluggish", "standard", one.url, price={"input": 1, "output": 1}),
        model("swift", "standard", two.url, model="large", price={"input": 2, "output": 2}),
        model("shaky", "deep", one.url, price={"input": 0.1, "output": 0.1}),
        model("steady", "deep", two.url, model="large", price={"input": 9, "output": 9}),
    ]
    tenants = [
        {"name": "cheap", "policy": "cheap"},
        {"name": "hasty", "policy": "hasty"},
        {"name": "eu", "routing": {"regions": ["eu"]}},
    ]
    everyday = {"tiers": ["economy", "premium"]}
    keys = [
        {"key": KEY, "name": "test", **everyday},
        {"key": WORDY_KEY, "name": "wordy", **everyday},
        {"key": "sk-deep-0123456789", "name": "deep", "tenant": "cheap", "tiers": ["deep"]},
        {"key": "sk-hasty-0123456789", "name": "hasty", "tenant": "hasty", "tiers": ["standard"]},
        {"key": PLACES_KEY, "name": "places", "tenant": "eu", **everyday},
        {"key": SHARE_KEY, "name": "share", "routing": {"max_premium_share": 0.25, "min_quality": 0.99}, **everyday},
    ]
    config = {
        "models": models,
        "tenants": tenants,
        "keys": keys,
        "policies": {
            "default": {"min_quality": 0.5},
            "cheap": {"min_quality": 0},
            "hasty": {"objective": "latency", "min_quality": 0},
            "housed": {"local_only": True},
        },
    }
    with gateway(tmp_path_factory.mktemp("policies"), config) as started:
        yield started


@pytest.fixture(scope="module")
def admin(running: Gateway) -> Member:
    return Member(running, ADMIN_KEY)


def ask(running: Gateway, key: str = KEY, **more: Any) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 100, **more}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{running.base_url}/chat/completions", headers=headers, json=body, timeout=30)


def answered_by(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["x-penstock-model"]


def where_questions_go(running: Gateway, **more: Any) -> list[str]:
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [answered_by(ask(running, messages=messages, **more)) for messages in asked]


def calls(upstreams: tuple[Upstream, Upstream]) -> list[int]:
    """How often `small` and `large` were asked."""
    return [
        each.calls()["models"].get(name, {}).get("calls", 0)
        for each, name in zip(upstreams, ("small", "large"), strict=True)
    ]


def test_another_floor_moves_the_traffic_of_a_running_gateway(
    running: Gateway, admin: Member, upstreams: tuple[Upstream, Upstream]
) -> None:
    assert set(where_questions_go(running)) == {"small"}
    before = calls(upstreams)
    reply = admin.ask("PUT", "policies/default", {"min_quality": 0.99})
    assert (reply.status_code, reply.json()["policy"]["min_quality"]) == (200, 0.99)
    until(lambda: answered_by(ask(running)) == "large")
    assert set(where_questions_go(running)) == {"large"}
    after = calls(upstreams)
    assert after[1] - before[1] >= len(QUESTIONS)
    assert set(where_questions_go(running, penstock={"min_quality": 0.5})) == {"small"}, "a request may ask for less"
    assert admin.ask("DELETE", "policies/default").status_code == 200
    until(lambda: answered_by(ask(running)) == "small")
    actions = [entry["action"] for entry in admin.get("audit")["entries"]]
    assert [action for action in actions if action.startswith("policies.")] == ["policies.reset", "policies.set"]


def test_the_command_line_sees_and_changes_the_same_policies(running: Gateway, admin: Member) -> None:
    running.command("policies", "set", "cheap", "objective=latency", "sla={total_seconds: 9}")
    [cheap] = [each for each in running.json("policies", "list")["policies"] if each["name"] == "cheap"]
    assert cheap["set"] == {
        "objective": "latency",
        "sla": {"total_seconds": 9.0, "first_token_seconds": None, "otherwise": "behind"},
    }
    assert admin.get("policies/cheap")["policy"] == cheap["policy"]
    wrong = running.command("policies", "set", "cheap", "min_qualty=1", check=False)
    assert (wrong.returncode, "unknown key 'min_qualty'" in wrong.stderr) == (2, True)
    assert running.command("policies", "reset", "cheap").stdout == "cheap: as it is configured.\n"
    explained = running.json("router", "explain", QUESTIONS[0])["policies"]
    assert {each["policy"]: each["candidates"][0]["model"] for each in explained} == {
        "default": "shaky",
        "cheap": "shaky",
        "hasty": "shaky",
        "housed": "large",
    }


def test_a_role_decides_who_may_change_policies(admin: Member) -> None:
    viewer, of_tenant = member(admin, "viewer"), member(admin, "admin", "eu")
    assert {each["name"] for each in viewer.get("policies")} == {"default", "cheap", "hasty", "housed"}
    assert "These roles may: owner, admin." in viewer.refused(403, "PUT", "policies/default", {"min_quality": 0.1})
    assert "whole installation" in of_tenant.refused(403, "PUT", "policies/default", {"min_quality": 0.1})
    assert "no policy 'x'" in admin.refused(404, "PUT", "policies/x", {"min_quality": 0.1})
    assert "got 7" in admin.refused(400, "PUT", "policies/default", {"min_quality": 7})
    assert "Nothing of the policy" in admin.refused(404, "DELETE", "policies/default")


def test_a_confidence_that_nothing_can_be_promised_with_is_refused_and_says_what_to_give(admin: Member) -> None:
    for wrong in ("0.5", "1", "nan", "0.9999999999999999"):
        assert "give more than 0.5 and at most 0.9999" in admin.refused(400, "GET", f"router?confidence={wrong}")
    assert "at most 0.9999" in admin.refused(400, "PUT", "policies/default", {"confidence": 0.5})
    assert admin.get("router", confidence=0.9999)["promises"]


def test_a_place_of_the_configuration_cannot_be_widened_and_one_key_can_be_taken_back(admin: Member) -> None:
    refused = admin.refused(400, "PUT", "policies/housed", {"local_only": False})
    assert "local_only: it is true in penstock.yaml" in refused
    admin.ask("PUT", "policies/housed", {"min_quality": 0.5})
    assert admin.ask("PUT", "policies/housed", {"objective": "quality"}).json()["policy"]["min_quality"] == 0.5
    assert admin.ask("PUT", "policies/housed", {"min_quality": None}).status_code == 200
    housed = admin.get("policies/housed")
    assert (housed["set"], housed["left_out"]) == ({"objective": "quality"}, {})


def test_a_failing_candidate_is_put_behind_and_comes_back_after_a_probe(running: Gateway) -> None:
    for _ in range(3):
        reply = ask(running, "sk-deep-0123456789")
        assert (answered_by(reply), reply.headers["x-penstock-attempts"]) == ("steady", "2")
    reply = ask(running, "sk-deep-0123456789")
    assert (answered_by(reply), reply.headers["x-penstock-attempts"]) == ("steady", "1")
    assert "not shaky: 100% of its last calls failed" in reply.headers["x-penstock-decision"]
    event = running.event(reply.headers["x-penstock-request-id"])
    assert [each["why"] for each in event["explanation"]["candidates"]] == [
        "asked first",
        "100% of its last calls failed",
    ]
    until(lambda: answered_by(ask(running, "sk-deep-0123456789")) == "shaky")
    reply = ask(running, "sk-deep-0123456789")
    assert (answered_by(reply), "not shaky" in reply.headers["x-penstock-decision"]) == ("shaky", False)


def test_latency_is_measured_and_the_faster_one_answers(running: Gateway, admin: Member) -> None:
    hasty = "sk-hasty-0123456789"
    tried = []
    for _ in range(6):
        reply = ask(running, hasty, stream=True)
        tried.append(answered_by(reply))
    assert tried[0] == "sluggish", "nothing is known yet, and it is cheaper"
    assert tried[2:] == ["swift"] * 4
    health = {each["name"]: each["health"] for each in admin.get("models")}
    assert health["sluggish"]["first_token_seconds"] >= 0.4 > health["swift"]["first_token_seconds"]
    event = running.event(reply.headers["x-penstock-request-id"])
    swift, sluggish = event["explanation"]["candidates"]
    assert swift["expected_seconds"] < sluggish["expected_seconds"]
    admin.ask("PUT", "policies/hasty", {"objective": "cost", "sla": {"first_token_seconds": 0.3}})
    until(lambda: "its first token takes" in ask(running, hasty).headers["x-penstock-decision"])
    assert answered_by(ask(running, hasty)) == "swift"
    admin.ask("PUT", "policies/hasty", {"sla": None})
    until(lambda: answered_by(ask(running, hasty)) == "sluggish")


def test_a_conversation_stays_where_its_prompt_is_cached_when_that_is_cheaper(running: Gateway) -> None:
    turn = [{"role": "user", "content": "A long story about a river and a mill. " * 300}]
    more = [*turn, {"role": "assistant", "content": "s"}, {"role": "user", "content": "And then?"}]
    assert answered_by(ask(running, model="auto:quick", messages=more)) == "small"
    assert answered_by(ask(running, model="warm", messages=turn)) == "warm"
    reply = ask(running, model="auto:quick", messages=more)
    assert answered_by(reply) == "warm"
    first = running.event(reply.headers["x-penstock-request-id"])["explanation"]["candidates"][0]
    assert first["cached_tokens"] > 2000


def test_another_question_under_the_same_system_prompt_goes_where_that_is_cached(running: Gateway) -> None:
    rules = {"role": "system", "content": "You answer by these rules. " * 700}
    questions = [[rules, {"role": "user", "content": text}] for text in QUESTIONS]
    assert answered_by(ask(running, model="auto:quick", messages=questions[0])) == "small"
    assert answered_by(ask(running, model="warm", messages=questions[1])) == "warm"
    for asked in questions[2:]:
        reply = ask(running, model="auto:quick", messages=asked)
        assert answered_by(reply) == "warm"
        first = running.event(reply.headers["x-penstock-request-id"])["explanation"]["candidates"][0]
        assert first["cached_tokens"] == len(rules["content"]) // 4


def test_places_hold_for_tenants_and_requests_whatever_they_ask_for(running: Gateway) -> None:
    assert set(where_questions_go(running, key=PLACES_KEY)) == {"large"}
    refused = ask(running, PLACES_KEY, model="small").json()["error"]
    assert (refused["code"], "it runs in us, and only eu is allowed" in refused["message"]) == ("no_candidate", True)
    assert answered_by(ask(running, penstock={"local_only": True})) == "large"
    assert answered_by(ask(running, penstock={"regions": ["us"]})) == "small"
    nowhere = ask(running, PLACES_KEY, penstock={"regions": ["us"]}).json()["error"]
    assert "only no region is allowed" in nowhere["message"]
    for wrong in ({"local_only": "maybe"}, {"regions": []}, {"regions": 5}):
        assert ask(running, penstock=wrong).json()["error"]["code"] == "invalid_value"


def test_a_key_gets_no_more_than_its_share_of_premium_answers(running: Gateway) -> None:
    models = [answered_by(ask(running, SHARE_KEY)) for _ in range(12)]
    assert models[0] == "large"
    assert models.count("large") in (2, 3)
    named = ask(running, SHARE_KEY, model="large")
    assert answered_by(named) == "large"


def test_words_that_nobody_knows_buy_the_best_model_for_no_more_than_the_keys_share(
    running: Gateway, admin: Member
) -> None:
    wordy = [{"role": "user", "content": f"{QUESTIONS[0]} zxqv wqrt plok mnbv"}]
    replies = [ask(running, WORDY_KEY, messages=wordy) for _ in range(30)]
    assert [answered_by(reply) for reply in replies] == ["large"] * 20 + ["small"] * 10
    assert replies[19].headers["x-penstock-decision"].startswith("unfamiliar prompt")
    assert "the key's share of these is used up" in replies[20].headers["x-penstock-decision"]
    admin.ask("PUT", "policies/default", {"max_unfamiliar_share": 1})
    until(lambda: answered_by(ask(running, WORDY_KEY, messages=wordy)) == "large")
    assert admin.ask("DELETE", "policies/default").status_code == 200
    until(lambda: answered_by(ask(running, WORDY_KEY, messages=wordy)) == "small")


def test_a_key_made_at_run_time_has_terms_of_its_own(running: Gateway, admin: Member) -> None:
    made = admin.ask("POST", "keys", {"name": "local", "routing": {"local_only": True, "max_cost_usd": "0.5"}}).json()
    until(lambda: answered_by(ask(running, made["key"])) == "large")
    [listed] = [key for key in admin.get("keys") if key["id"] == made["id"]]
    assert listed["routing"] == {"local_only": True, "max_cost_usd": "0.5"}
    spoken = running.command("keys", "create", "--name", "thrifty", "--max-cost-usd", "0.00001", "--region", "eu")
    secret = spoken.stdout.splitlines()[0]
    deadline = time.monotonic() + 60
    while (reply := ask(running, secret)).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "could cost more than max_cost_usd" in reply.json()["error"]["message"]
