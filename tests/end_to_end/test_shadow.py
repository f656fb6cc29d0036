"""Shadow requests with real processes: another tier is asked after the answer, compared, paid by the operator, never seen."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.chat.sampling import place_of
from tests.administering import Member
from tests.running import ADMIN_KEY, KEY, gateway, upstream
from tests.shadowing import (
    LARGE_CHARGE,
    SMALL_CHARGE,
    TOKENS,
    ask,
    configuration,
    outcomes,
    pairs,
    reading_judge,
    scores,
    wait_for,
)

AGREE = {"small": {"reply": "The answer is 42.", "tokens": TOKENS}, "large": {"reply": "#### 42", "tokens": TOKENS}}
DIFFER = {"small": {"reply": "41", "tokens": TOKENS}, "large": {"reply": "42", "tokens": TOKENS}}


@pytest.mark.parametrize("stream", [False, True])
def test_another_tier_is_asked_after_the_answer_and_the_operator_pays(
    tmp_path: Path, database_url: str, stream: bool
) -> None:
    with upstream(AGREE) as up, gateway(tmp_path, configuration(up.url), DATABASE_URL=database_url) as running:
        request_id = ask(running, stream=stream)
        (pair,) = pairs(running, 1)
        assert (pair["request_id"], pair["status"], pair["verdict"], pair["agreement"]) == (
            request_id, "compared", "agree", 1.0,
        )  # fmt: skip
        assert (pair["answered_model"], pair["model"], pair["tier"]) == ("small", "large", "premium")
        assert (pair["cost_pico"], pair["input_tokens"], pair["output_tokens"]) == (LARGE_CHARGE, 100, 50)
        assert scores(running, request_id) == {"small": 1.0, "large": 1.0}
        mine, shadow = running.event(request_id), running.event(pair["shadow_request_id"])
        assert (mine["tenant"], mine["model"], mine["charge_pico"]) == ("acme", "small", SMALL_CHARGE * 3 // 2)
        assert (shadow["tenant"], shadow["key_name"], shadow["charge_pico"]) == (
            "house",
            "shadow default",
            LARGE_CHARGE,
        )
        assert shadow["end_user"] is None
        assert {name: tally["calls"] for name, tally in up.calls()["models"].items()} == {"small": 1, "large": 1}
        assert running.json("ledger", "verify")["ok"]
        # What was asked for by name is not sampled, and no text is kept of what is compared by itself.
        ask(running, model="small")
        assert wait_for(running, "agreed", 1) == {"agreed": 1}
        assert {name for name in pair if "text" in name or name in "ab"} == set()


def test_of_two_final_answers_the_stronger_tiers_is_taken_as_right(tmp_path: Path) -> None:
    with upstream(DIFFER) as up, gateway(tmp_path, configuration(up.url, tier="premium")) as running:
        request_id = ask(running)
        (pair,) = pairs(running, 1)
        assert (pair["verdict"], pair["agreement"]) == ("shadow", 0.0)
        assert scores(running, request_id) == {"small": 0.0, "large": 1.0}
        (label, _) = running.admin(f"requests/{request_id}/labels")
        assert (label["source"], label["author"], label["tenant"], label["policy"]) == ("exact", "", "acme", "default")
        # The premium tier has answered by itself: there is nobody else to ask.
        ask(running, model="auto:deep")
        assert wait_for(running, "same_tier", 1)["differed"] == 1


def test_the_other_of_the_best_tier_is_the_cheapest(tmp_path: Path) -> None:
    with upstream(DIFFER) as up, gateway(tmp_path, configuration(up.url, tier="other")) as running:
        request_id = ask(running, model="auto:deep")
        (pair,) = pairs(running, 1)
        assert (pair["answered_model"], pair["model"], pair["verdict"]) == ("large", "small", "answer")
        assert scores(running, request_id) == {"small": 0.0, "large": 1.0}


def test_a_share_is_sampled_and_the_request_id_alone_says_which(tmp_path: Path) -> None:
    with upstream(AGREE) as up, gateway(tmp_path, configuration(up.url, share=0.25)) as running:
        with ThreadPoolExecutor(4) as threads:
            ids = list(threads.map(lambda _: ask(running), range(60)))
        chosen = {request_id for request_id in ids if place_of(request_id) < 0.25}
        assert {pair["request_id"] for pair in pairs(running, len(chosen))} == chosen
        assert 0 < len(chosen) < 40


def test_a_key_is_sampled_only_within_what_it_may_use(tmp_path: Path) -> None:
    config = configuration("", tier="other")
    keys = [("sk-cheap-0123456789", {"tiers": ["economy"]}), ("sk-named-0123456789", {"models": ["auto", "small"]})]
    config["keys"] += [{"key": key, "name": key, "tenant": "acme", **scope} for key, scope in keys]
    with upstream(AGREE) as up:
        config["models"] = configuration(up.url)["models"]
        with gateway(tmp_path, config) as running:
            for key, _ in keys:
                ask(running, key=key)
            wait_for(running, "same_tier", 1)
            wait_for(running, "not_allowed", 1)
            assert "large" not in up.calls()["models"]
            assert running.admin("shadow?status=all")["pairs"] == []


def test_nothing_is_paid_where_the_judge_may_not_be_asked(tmp_path: Path) -> None:
    with upstream({**AGREE, "judge": {"reply": "A"}}) as up:
        config = configuration(up.url, up.url, compare="judge", judge="judge", tier="premium")
        auto, inside = "sk-auto-0123456789", "sk-in-0123456789"
        config["models"] = [{**entry, "local": entry["name"] != "judge"} for entry in config["models"]]
        config["keys"] += [
            {"key": auto, "name": "auto", "tenant": "acme", "models": ["auto"]},
            {"key": inside, "name": "in", "tenant": "acme", "routing": {"local_only": True}},
        ]
        with gateway(tmp_path, config) as running:
            for key in (auto, inside, auto):
                ask(running, key=key)
            wait_for(running, "not_allowed", 3)
            assert {name: tally["calls"] for name, tally in up.calls()["models"].items()} == {"small": 3}
            assert {row["tenant"] for row in running.json("usage", "--group-by", "tenant")["rows"]} <= {"acme"}


def test_an_image_is_not_kept_for_a_sample(tmp_path: Path) -> None:
    with upstream(AGREE) as up, gateway(tmp_path, configuration(up.url)) as running:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}
        question = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
        ask(running, messages=question)
        ask(running)
        wait_for(running, "agreed", 1)
        assert up.calls()["models"]["large"]["calls"] == 1


def test_requests_with_tools_are_compared_by_their_calls(tmp_path: Path) -> None:
    call = {"name": "pay", "arguments": '{"amount": 5}'}
    scripts = {"small": {"tool_call": call}, "large": {"tool_call": {**call, "arguments": '{ "amount":5 }'}}}
    tools: Any = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}]
    with upstream(scripts) as up, gateway(tmp_path, configuration(up.url)) as running:
        for stream in (False, True):
            ask(running, tools=tools, stream=stream)
        assert {pair["verdict"] for pair in pairs(running, 2)} == {"agree"}
        assert up.calls()["models"]["large"]["calls"] == 2, "the calls are compared, nobody makes them"


@pytest.mark.parametrize(
    ("favourite", "says", "verdict", "expected"),
    [
        ("Paris", None, "shadow", {"small": 0.0, "large": 1.0}),
        ("Rome", None, "answer", {"small": 1.0, "large": 0.0}),
        ("", "A", "agree", {"small": 1.0, "large": 1.0}),
        ("", "well", "incomparable", {}),
    ],
)
def test_a_judge_is_asked_in_both_orders(
    tmp_path: Path, favourite: str, says: str | None, verdict: str, expected: dict[str, float]
) -> None:
    scripts = {"small": {"reply": "I believe that it is Rome."}, "large": {"reply": "Surely it must be Paris."}}
    with upstream(scripts) as up, reading_judge(favourite, says=says) as judge_url:
        config = configuration(up.url, judge_url, tier="premium", compare="judge", judge="judge")
        with gateway(tmp_path, config) as running:
            request_id = ask(running, "What is the capital of France?")
            (pair,) = pairs(running, 1)
            assert (pair["verdict"], pair["judge"]) == (verdict, "judge")
            assert scores(running, request_id) == expected
            shadow = running.event(pair["shadow_request_id"])
            judge = 2 * (100 * 1_000_000 + 1 * 2_000_000)
            assert pair["cost_pico"] == shadow["cost_pico"] + judge, "the judge is paid by the same key"
            rows = running.json("usage", "--group-by", "tenant")["rows"]
            assert {row["tenant"]: row["requests"] for row in rows} == {"acme": 1, "house": 3}
            assert running.json("ledger", "verify")["ok"]


def test_people_judge_pairs_without_knowing_who_wrote_them(tmp_path: Path, database_url: str) -> None:
    with upstream(DIFFER) as up:
        config = configuration(up.url, compare="human", keep_days=3)
        with gateway(tmp_path, config, DATABASE_URL=database_url) as running:
            ids = [ask(running, f"question {number}") for number in range(12)]
            waiting = pairs(running, 12, "waiting")
            assert {pair["prompt"] for pair in waiting} == {f"question {number}" for number in range(12)}
            assert {pair["a"] for pair in waiting} == {"41", "42"}, "the order is mixed"
            assert {pair["model"] for pair in waiting} == {None}
            admin = Member(running, ADMIN_KEY)
            for pair in waiting[:10]:
                better = "a" if pair["a"] == "42" else "b"
                reply = admin.ask("POST", f"shadow/{pair['request_id']}", {"verdict": better})
                assert reply.json()["verdict"] == "shadow", reply.text
                assert scores(running, pair["request_id"]) == {"small": 0.0, "large": 1.0}
            changed = waiting[0]["request_id"]
            assert admin.ask("POST", f"shadow/{changed}", {"verdict": "tie"}).json()["verdict"] == "agree"
            assert scores(running, changed) == {"small": 1.0, "large": 1.0}
            assert len(running.admin(f"requests/{changed}/labels")) == 2
            assert pairs(running, 2, "waiting") == waiting[10:]
            first = running.admin("shadow?status=all&limit=7")
            second = admin.get("shadow", status="all", limit=7, after=first["next"])
            assert {pair["request_id"] for page in (first, second) for pair in page["pairs"]} == set(ids)
            assert second["next"] is None
            admin.refused(400, "POST", f"shadow/{changed}", {"verdict": "best"})
            admin.refused(404, "POST", "shadow/req_unknown", {"verdict": "a"})
            assert "is not the `next`" in admin.refused(400, "GET", "shadow", after="yesterday")
            assert "'new': give compared" in admin.refused(400, "GET", "shadow?status=new")
            (entry, *_) = running.admin("audit?limit=1")["entries"]
            assert (entry["action"], entry["object"]) == ("shadow.judge", changed)


def test_a_slow_or_broken_other_tier_is_never_felt_by_clients(tmp_path: Path) -> None:
    scripts: dict[str, Any] = {
        "small": {"reply": "42"},
        "large": {"behaviour": "slow", "reply": "42", "first_token_seconds": 3, "per_token_seconds": 0},
    }
    with upstream(scripts) as up, gateway(tmp_path, configuration(up.url)) as running:
        started = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            ids = list(threads.map(lambda _: ask(running), range(100)))
        assert time.monotonic() - started < 60
        busy = outcomes(running)["busy"]
        assert busy >= 100 - 64 - 2 * 4 * 20, "what does not fit is dropped"
        assert len(set(ids)) == 100
        assert running.stop() == 0, "nobody waits for a sample at the end"
        running.start()
        assert running.json("ledger", "verify")["ok"]
        states = {pair["status"] for pair in running.admin("shadow?status=all&limit=500")["pairs"]}
        assert states <= {"compared"}

    broken = {"small": {"reply": "42"}, "large": {"behaviour": "flaky", "fail_every": 1}}
    with upstream(broken) as up, gateway(tmp_path / "broken", configuration(up.url)) as running:
        request_id = ask(running)
        wait_for(running, "failed", 1)
        assert running.event(request_id)["outcome"] == "completed"
        assert running.admin("shadow?status=all")["pairs"] == []
        assert KEY not in running.log
        assert "a shadow request failed: provider_failed (502)" in running.log
        assert "scripted failure" not in running.log, "what an upstream says may quote the prompt"
