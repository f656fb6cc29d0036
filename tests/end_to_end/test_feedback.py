"""POST /v1/feedback as clients send it: kept once acknowledged, one word per key and request, nobody else's requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.chat.feedback import MOST_OF_A_KEY
from gateway.request_ids import new_request_id
from tests.backends import PostgresServer
from tests.running import KEY, Gateway, gateway, model, upstream

WEB, OTHER, RIVAL, TALKS = "sk-web-0123456789", "sk-web2-0123456789", "sk-rival-0123456789", "sk-talks-0123456789"
HUGE = "x" * 5000
QUESTION: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def configuration() -> Iterator[dict[str, Any]]:
    scripts = {"m": {"reply": "hi"}, "broken": {"behaviour": "flaky", "fail_every": 1}}
    with upstream(scripts) as running:
        yield {
            "models": [model(name, "economy", running.url) for name in scripts],
            "policies": {"talks": {"keep_comments": True}},
            "tenants": [
                {"name": "acme", "projects": [{"name": "web"}, {"name": "app"}]},
                {"name": "rival"},
                {"name": "talks", "policy": "talks"},
            ],
            "keys": [
                {"key": KEY, "name": "all", "tenant": "acme"},
                {"key": WEB, "name": "web", "tenant": "acme", "project": "web"},
                {"key": OTHER, "name": "app", "tenant": "acme", "project": "app"},
                {"key": RIVAL, "name": "rival", "tenant": "rival", "limits": {"requests_per_minute": 5}},
                {"key": TALKS, "name": "talks", "tenant": "talks"},
            ],
        }


def ask(running: Gateway, key: str = KEY, **changes: Any) -> str:
    """One answered request; its id."""
    with openai.OpenAI(base_url=running.base_url, api_key=key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(**{**QUESTION, **changes})
        return str(raw.headers["x-penstock-request-id"])


def give(running: Gateway, body: Any, key: str = KEY) -> httpx.Response:
    """Feedback by plain HTTP."""
    return httpx.post(f"{running.base_url}/feedback", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30)


def labels(running: Gateway, request_id: str, expected: int) -> list[dict[str, Any]]:
    """The labels of a request, once there are as many as expected."""
    deadline = time.monotonic() + 60
    while True:
        found: list[dict[str, Any]] = running.admin(f"requests/{request_id}/labels")
        if len(found) == expected:
            return found
        assert time.monotonic() < deadline, f"{found}\n{running.log}"
        time.sleep(0.1)


def test_feedback_becomes_a_label_and_a_later_word_replaces_it(
    tmp_path: Path, configuration: dict[str, Any], database_url: str
) -> None:
    with gateway(tmp_path, configuration, DATABASE_URL=database_url) as running:
        request_id = ask(running, WEB)
        with openai.OpenAI(base_url=running.base_url, api_key=WEB, max_retries=0) as client:
            # At once, while the request may still be on its way to the ledger.
            said = client.post("/feedback", body={"request_id": request_id, "score": 0.25}, cast_to=dict[str, Any])
        assert said["object"] == "feedback"
        assert (said["request_id"], said["score"]) == (request_id, 0.25)
        (label,) = labels(running, request_id, 1)
        assert {name: label[name] for name in ("tenant", "policy", "model", "tier", "source", "score", "comment")} == {
            "tenant": "acme", "policy": "default", "model": "m", "tier": "economy", "source": "feedback", "score": 0.25,
            "comment": None,
        }  # fmt: skip
        for body, score in (({"label": "good"}, 1.0), ({"thumbs": "down"}, 0.0), ({"thumbs": "down"}, 0.0)):
            assert give(running, {"request_id": request_id, **body}, WEB).status_code == 200
            deadline = time.monotonic() + 60
            while (now := labels(running, request_id, 1)[0])["score"] != score:
                assert time.monotonic() < deadline, now
                time.sleep(0.1)
        # A key of the whole tenant has a word of its own.
        assert give(running, {"request_id": request_id, "score": 1}).status_code == 200
        assert sorted(each["score"] for each in labels(running, request_id, 2)) == [0.0, 1.0]
        metrics = httpx.get(f"{running.url}/metrics").text
        assert 'penstock_labels_total{model="m",source="feedback"}' in metrics
        assert running.json("ledger", "verify")["ok"]


def test_nobody_learns_of_requests_of_others(tmp_path: Path, configuration: dict[str, Any], database_url: str) -> None:
    with gateway(tmp_path, configuration, DATABASE_URL=database_url) as running:
        request_id, unknown = ask(running, WEB), new_request_id(time.time())
        running.event(request_id)
        answers = {}
        for name, (key, wanted) in {
            "another tenant": (RIVAL, request_id), "another project": (OTHER, request_id), "nobody": (RIVAL, unknown),
        }.items():  # fmt: skip
            started = time.monotonic()
            reply = give(running, {"request_id": wanted, "score": 0}, key)
            answers[name] = (reply.status_code, reply.json()["error"]["message"].replace(wanted, "ID"))
            assert time.monotonic() - started > 2, f"{name} is answered sooner, which tells them apart"
        assert len(set(answers.values())) == 1, answers
        status, message = answers["nobody"]
        assert status == 404
        assert "x-penstock-request-id" in message
        assert running.admin(f"requests/{request_id}/labels") == []
        assert give(running, {"request_id": ask(running, RIVAL), "score": 0}, RIVAL).is_success
        with ThreadPoolExecutor(20) as threads:
            word = {"request_id": request_id, "score": 0}
            refused = list(threads.map(lambda _: give(running, word, RIVAL).status_code, range(20)))
        # At most two minutes have a part in these, of five words each.
        assert set(refused) == {404, 429}
        assert refused.count(429) >= 10, "feedback is limited like requests are"


def test_a_key_has_only_so_many_words_that_look_for_their_request(
    tmp_path: Path, configuration: dict[str, Any]
) -> None:
    with gateway(tmp_path, configuration) as running:
        known = ask(running)
        running.event(known)

        def guess(_: int) -> httpx.Response:
            return give(running, {"request_id": new_request_id(time.time()), "score": 0})

        with ThreadPoolExecutor(2 * MOST_OF_A_KEY) as threads:
            waiting = [threads.submit(guess, number) for number in range(2 * MOST_OF_A_KEY)]
            time.sleep(1)
            assert give(running, {"request_id": known, "score": 1}).status_code == 200, (
                "what is known has nothing to wait for"
            )
            replies = [each.result() for each in waiting]
        statuses = [reply.status_code for reply in replies]
        looked, refused = statuses.count(404), statuses.count(429)
        assert looked + refused == 2 * MOST_OF_A_KEY
        # One that comes late, on a slow machine, takes the place of one that has finished looking.
        assert MOST_OF_A_KEY <= looked < 1.5 * MOST_OF_A_KEY
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert f"{MOST_OF_A_KEY} words of the key 'all' wait" in refused.json()["error"]["message"]
        assert guess(0).status_code == 404, "who is done makes room"


BAD: list[tuple[Any, int, str, str]] = [
    ({"score": 1}, 400, "invalid_value", "request_id is missing"),
    ({"request_id": 7, "score": 1}, 400, "invalid_value", "request_id is 7"),
    ({"request_id": "ID"}, 400, "invalid_value", "Give one of score, label and thumbs"),
    ({"request_id": "ID", "score": 1, "label": "good"}, 400, "invalid_value", "score and label"),
    ({"request_id": "ID", "score": 2}, 400, "invalid_value", "score is 2; it must be a number from 0"),
    ({"request_id": "ID", "score": -0.1}, 400, "invalid_value", "score is -0.1"),
    ({"request_id": "ID", "score": True}, 400, "invalid_value", "score is True"),
    ({"request_id": "ID", "score": "great"}, 400, "invalid_value", "score is 'great'"),
    ({"request_id": "ID", "label": "great"}, 400, "invalid_value", "label is 'great'; it must be 'good' or 'bad'"),
    ({"request_id": "ID", "thumbs": ["up"]}, 400, "invalid_value", "thumbs is ['up']"),
    ({"request_id": "ID", "score": 1, "comment": HUGE}, 400, "invalid_value", "comment has 5000 characters"),
    ({"request_id": "ID", "score": 1, "comment": 3}, 400, "invalid_value", "comment is 3"),
    ({"request_id": "ID", "rating": 1}, 400, "unknown_option", "Unknown field 'rating'"),
    ({"request_id": "chatcmpl-123", "score": 1}, 404, "request_not_found", "not the completion's own `id`"),
    ({"request_id": "req_" + "0" * 32, "score": 1}, 404, "request_not_found", "No request of this key's tenant"),
    ({"request_id": "x" * 101, "score": 1}, 400, "invalid_value", "request_id is 'xxx"),
    (["ID"], 400, "invalid_json", "must be a JSON object"),
]


def test_bad_feedback_says_what_is_wrong(tmp_path: Path, configuration: dict[str, Any]) -> None:
    with gateway(tmp_path, configuration) as running:
        request_id = ask(running)
        for body, status, code, message in BAD:
            if isinstance(body, dict) and body.get("request_id") == "ID":
                body = {**body, "request_id": request_id}
            reply = give(running, body)
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (status, code), (body, error)
            assert message in error["message"], (body, error)
        address, headers = f"{running.base_url}/feedback", {"authorization": f"Bearer {KEY}"}
        for raw in (b'{"request_id": "x", "score": NaN}', b"not json", b"\xff"):
            reply = httpx.post(address, content=raw, headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json"), raw
        assert httpx.post(address, content=b" " * 70_000, headers=headers).status_code == 413
        assert httpx.post(address, json={}).status_code == 401
        assert httpx.get(address, headers=headers).status_code == 405
        with pytest.raises(openai.InternalServerError):
            ask(running, model="broken")
        deadline = time.monotonic() + 60
        while not (found := running.admin("requests?outcome=failed&limit=1")["requests"]):
            assert time.monotonic() < deadline
        failed = found[0]["request_id"]
        assert "No model answered" in give(running, {"request_id": failed, "score": 1}).json()["error"]["message"]
        assert labels(running, request_id, 0) == []


def test_a_comment_is_kept_only_where_the_policy_says_so(tmp_path: Path, configuration: dict[str, Any]) -> None:
    with gateway(tmp_path, configuration) as running:
        for key, kept in ((KEY, False), (TALKS, True)):
            request_id = ask(running, key)
            running.event(request_id)
            body = {"request_id": request_id, "score": 0, "comment": " too long \0 "}
            assert give(running, body, key).json()["comment_kept"] is kept
            assert labels(running, request_id, 1)[0]["comment"] == ("too long \ufffd" if kept else None)


def test_acknowledged_feedback_outlives_a_killed_gateway(
    tmp_path: Path, configuration: dict[str, Any], database_url: str
) -> None:
    with gateway(tmp_path, configuration, DATABASE_URL=database_url) as running:
        acknowledged: dict[str, float] = {}
        stop = threading.Event()

        def work(number: int) -> None:
            while not stop.is_set():
                try:
                    request_id = ask(running)
                    score = number / 8
                    if give(running, {"request_id": request_id, "score": score}).is_success:
                        acknowledged[request_id] = score
                except (openai.APIError, httpx.HTTPError):
                    time.sleep(0.05)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < 25:
            assert time.monotonic() < deadline, running.log
            time.sleep(0.02)
        running.kill()
        stop.set()
        for thread in threads:
            thread.join()
        running.start()
        for request_id, score in acknowledged.items():
            (label,) = labels(running, request_id, 1)
            assert label["score"] == score
        assert running.json("ledger", "verify")["ok"]


def test_feedback_is_taken_while_the_database_is_away(
    tmp_path: Path, configuration: dict[str, Any], postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.split("/")[3].partition("?")[0]
    with gateway(tmp_path, configuration, DATABASE_URL=postgres_url) as running:
        theirs = ask(running, RIVAL)
        running.event(theirs)
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        mine = ask(running)
        for request_id in (mine, theirs):
            reply = give(running, {"request_id": request_id, "score": 0.5})
            assert (reply.status_code, reply.json()["status"]) == (202, "waiting"), reply.text
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert labels(running, mine, 1)[0]["score"] == 0.5
        assert labels(running, theirs, 0) == [], "somebody else's request"
