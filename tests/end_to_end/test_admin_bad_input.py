"""What the admin API refuses: every wrong value is named, in the shape of all errors, on both databases."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.administering import Member
from tests.running import ADMIN_KEY

LABELLED = {
    "name": "m",
    "tier": "economy",
    "provider": "scripted",
    "price": {"input": 1, "output": 1},
    "quality": {"labels": "/etc/passwd"},
}


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": "5 USD"}, "limit_usd must be a decimal number of USD"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": True}, "decimal string"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": "-1"}, "must not be negative"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": "NaN"}, "must be finite"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": "1e300"}, "at most 9000000"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": 1, "period": "year"}, "period"),
        ("PUT", "budgets", {"scope": "tenant:acme", "limit_usd": 1, "soft": True}, "soft"),
        ("PUT", "budgets", {"scope": "tenant:acme"}, "limit_usd"),
        ("PUT", "budgets", {"scope": "acme", "limit_usd": 1}, "does not name an owner"),
        ("PUT", "budgets", {"scope": "project:acme/x", "limit_usd": 1}, "project 'x' is not configured. Known: web."),
        ("PUT", "budgets", {"scope": "user:acme/a\u0000b", "limit_usd": 1}, "all of which can be shown"),
        ("PUT", "budgets", {"scope": "x" * 301, "limit_usd": 1}, "at most 300"),
        ("PUT", "budgets", ["x"], "The body is ['x']; it must be a JSON object"),
        ("PUT", "limits", {"scope": "tenant:acme", "limit": "rpm", "value": 1}, "'rpm' is not a limit"),
        ("PUT", "limits", {"scope": "tenant:acme", "limit": "parallel", "value": 1.5}, "value"),
        ("PUT", "limits", {"scope": "tenant:acme", "limit": "parallel", "value": 2**63}, "value"),
        ("POST", "budgets/raises", {"scope": "tenant:acme", "usd": "1", "reason": "x"}, "until"),
        ("POST", "budgets/raises", {"scope": "tenant:acme", "usd": "1", "until": "2020-01-01", "reason": "x"}, "until"),
        ("POST", "budgets/raises", {"scope": "tenant:acme", "usd": "1", "until": "soon", "reason": "x"}, "until"),
        ("POST", "keys", {"name": "x", "tenant": "nobody"}, "tenant 'nobody' is not declared"),
        ("POST", "keys", {"name": "x", "tenant": "acme", "project": "nowhere"}, "has no project 'nowhere'"),
        ("POST", "keys", {"name": "x" * 101}, "at most 100"),
        ("POST", "keys", {"name": "x", "limits": {"rpm": 1}}, "'rpm' is not a limit"),
        ("POST", "keys", {"name": "x", "budgets": [{"limit_usd": 1}, {"limit_usd": 2}]}, "one budget for each period"),
        ("POST", "keys", {"name": "x", "models": []}, "models"),
        ("POST", "keys", {"name": "x", "expires_at": "9999-99-99"}, "expires_at"),
        ("POST", "members", {"name": "x", "role": "king"}, "role 'king' does not exist"),
        ("POST", "keys", {"nmae": "x"}, "unknown key 'nmae'; did you mean 'name'?"),
        ("POST", "keys", {"name": "x", "routing": {"min_qualty": 1}}, "did you mean 'min_quality'?"),
        ("POST", "keys", {"name": "x", "routing": {"regions": ["mars"]}}, "no model runs in mars and nowhere else"),
        ("POST", "router/replay", {"min_qualty": 0.5}, "unknown key 'min_qualty'; did you mean 'min_quality'?"),
        ("POST", "router/replay", {"config": {"models": [LABELLED]}}, "which only `penstock router replay --config` may read"),
        ("PUT", "policies/default", {"min_quality": True}, "must be a number"),
        ("PUT", "policies/default", {"regions": "eu"}, "regions: must be a list, got 'eu'."),
        ("PUT", "policies/default", None, "The body is empty; it must be a JSON object"),
        ("POST", "shadow/req_0", None, "The body is empty; it must be a JSON object"),
        ("GET", "audit?before=0", None, "before"),
        ("GET", "audit?before=x", None, "before"),
        ("GET", "keys?tenant=a%00b", None, "NUL"),
        ("POST", "keys/a%00b/revoke", None, "NUL"),
    ],
)  # fmt: skip
def test_bad_input_is_named_in_our_shape(admin: Member, method: str, path: str, body: Any, words: str) -> None:
    assert words in admin.refused(400, method, path, body)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("requests/zzz/labels", "There is no request 'zzz'"),
        ("router?tenant=nosuch", "There is no tenant 'nosuch'"),
        ("shadow?tenant=nosuch", "There is no tenant 'nosuch'"),
    ],
)
def test_what_is_not_there_is_not_shown_as_empty(admin: Member, path: str, words: str) -> None:
    assert words in admin.refused(404, "GET", path)
    assert admin.get("shadow", tenant="acme")["pairs"] == []


@pytest.mark.parametrize("called", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_json_body_is_read_whatever_the_client_calls_it(admin: Member, called: str | None) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", **({"content-type": called} if called else {})}
    address = f"{admin.running.url}/admin/api/policies/default"
    reply = httpx.put(address, headers=headers, content=b'{"min_quality": 0.9}', timeout=30)
    assert (reply.status_code, reply.json()["policy"]["min_quality"]) == (200, 0.9)
    assert admin.ask("DELETE", "policies/default").status_code == 200


@pytest.mark.parametrize(("content", "end"), [(b"{", ", at character 1."), (b"\xff", " in UTF-8.")])
def test_a_body_that_is_no_json_is_refused(admin: Member, content: bytes, end: str) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
    reply = httpx.post(f"{admin.running.url}/admin/api/keys", headers=headers, content=content, timeout=30)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_json", None)
    assert error["message"].startswith("The body is not valid JSON")
    assert error["message"].endswith(end)
