"""What the admin API refuses: every wrong value is named, in the shape of all errors, on both databases."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.administering import Member
from tests.running import ADMIN_KEY


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
        ("PUT", "budgets", ["x"], "valid"),
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
        ("GET", "audit?before=0", None, "before"),
        ("GET", "audit?before=x", None, "before"),
        ("GET", "keys?tenant=a%00b", None, "NUL"),
        ("POST", "keys/a%00b/revoke", None, "NUL"),
    ],
)  # fmt: skip
def test_bad_input_is_named_in_our_shape(admin: Member, method: str, path: str, body: Any, words: str) -> None:
    assert words in admin.refused(400, method, path, body)


@pytest.mark.parametrize(("content", "end"), [(b"{", ", at character 1."), (b"\xff", " in UTF-8.")])
def test_a_body_that_is_no_json_is_refused(admin: Member, content: bytes, end: str) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
    reply = httpx.post(f"{admin.running.url}/admin/api/keys", headers=headers, content=content, timeout=30)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_json", None)
    assert error["message"].startswith("The body is not valid JSON")
    assert error["message"].endswith(end)
