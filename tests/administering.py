"""Asking the admin API of a running gateway as somebody: the admin key, or a member with a role and maybe one tenant."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.running import Gateway

CONFIG: dict[str, Any] = {
    "tenants": [
        {"name": "acme", "budget": {"limit_usd": 100}, "projects": [{"name": "web", "budget": {"limit_usd": 10}}],
         "users": {"each": {"limits": {"requests_per_minute": 50}}}, "price_plan": {"markup_percent": 25}},
        {"name": "rival", "budget": {"limit_usd": 77}, "projects": [{"name": "secret-project"}]},
    ],
    "keys": [
        {"key": "sk-acme-0123456789", "name": "acme-app", "tenant": "acme", "project": "web"},
        {"key": "sk-rival-0123456789", "name": "rival-app", "tenant": "rival"},
    ],
}  # fmt: skip


@dataclass
class Member:
    """Somebody with a token, and what the gateway answers them."""

    running: Gateway
    token: str

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """One request to the admin API."""
        return httpx.request(
            method,
            f"{self.running.url}/admin/api/{path}",
            headers={"authorization": f"Bearer {self.token}"},
            json=body,
            params=query or None,
            timeout=30,
        )

    def get(self, path: str, **query: Any) -> Any:
        """A document."""
        reply = self.ask("GET", path, **query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def refused(self, status: int, method: str, path: str, body: Any = None, **query: Any) -> str:
        """The message of an error in our shape."""
        reply = self.ask(method, path, body, **query)
        assert reply.status_code == status, reply.text
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["message"])


_numbers = iter(range(1_000_000))


def member(admin: Member, role: str, tenant: str | None = None) -> Member:
    """A new member."""
    reply = admin.ask("POST", "members", {"name": f"{role} {next(_numbers)}", "role": role, "tenant": tenant})
    assert reply.status_code == 201, reply.text
    return Member(admin.running, reply.json()["token"])


def chat(running: Gateway, secret: str, **more: Any) -> httpx.Response:
    """One question."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, **more}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.post(f"{running.base_url}/chat/completions", headers=headers, json=body, timeout=30)


def until(check: Any, seconds: float = 60.0) -> None:
    """Wait until something has become so."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.1)
