"""What a hostile or careless client sends over a raw socket: each gets a clear answer and the gateway goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running import ADMIN_KEY, KEY, Gateway, gateway

AUTH = {"authorization": f"Bearer {KEY}"}
GOOD = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        {"name": "echo", "tier": "economy", "provider": "scripted", "context": 500, "price": {"input": 1, "output": 1}}
    ]
    keys = [{"key": KEY, "name": "acme-key", "tenant": "acme-tenant", "limits": {"parallel": 2}}]
    config = {"models": models, "keys": keys, "tenants": [{"name": "acme-tenant"}], "max_body_bytes": 100_000}
    with gateway(tmp_path_factory.mktemp("gateway"), config) as started:
        yield started


def post(running: Gateway, **options: Any) -> httpx.Response:
    return httpx.post(f"{running.base_url}/chat/completions", headers=AUTH, timeout=30, **options)


CASES: list[tuple[dict[str, Any], int, str]] = [
    ({"content": b"{not json"}, 400, "invalid_json"),
    ({"content": b""}, 400, "invalid_json"),
    ({"json": [1, 2]}, 400, "invalid_json"),
    ({"json": {**GOOD, "model": "unknown"}}, 404, "model_not_found"),
    ({"json": {**GOOD, "n": 0}}, 400, "invalid_value"),
    ({"json": {**GOOD, "max_tokens": -1}}, 400, "invalid_value"),
    ({"json": {**GOOD, "max_tokens": 10**18}}, 400, "invalid_value"),
    ({"json": {**GOOD, "penstock": {"colour": "red"}}}, 400, "unknown_option"),
    ({"json": {**GOOD, "messages": [{"role": "user", "content": "x" * 50_000}]}}, 400, "context_length_exceeded"),
    ({"json": {**GOOD, "messages": [{"role": "user", "content": "x" * 150_000}]}}, 413, "request_too_large"),
    ({"json": {**GOOD, "model": "premium"}}, 404, "model_not_found"),
    ({"json": {**GOOD, "model": "auto", "penstock": {"tier": "premium"}}}, 400, "no_candidate"),
    ({"json": {**GOOD, "penstock": {"max_cost_usd": 0}}}, 400, "no_candidate"),
]


@pytest.mark.parametrize(("options", "status", "code"), CASES, ids=[f"{status} {code}" for _, status, code in CASES])
def test_bad_input_is_a_clear_error_in_the_openai_shape(
    running: Gateway, options: dict[str, Any], status: int, code: str
) -> None:
    reply = post(running, **options)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 20
    assert reply.headers["x-request-id"].startswith("req_")
    assert post(running, json=GOOD).status_code == 200


def test_a_mistyped_option_header_is_refused_instead_of_ignored(running: Gateway) -> None:
    headers = {**AUTH, "x-penstock-max-cost": "0.01"}
    reply = httpx.post(f"{running.base_url}/chat/completions", headers=headers, json=GOOD, timeout=30)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_option")
    assert "x-penstock-max-cost-usd" in reply.json()["error"]["message"]


def test_strange_but_legal_bodies_are_answered_and_leave_no_slot_taken(running: Gateway) -> None:
    parts = [{"type": ["x"]}, {"type": "text", "text": "hello"}]
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    for change in ({"messages": [{"role": "user", "content": parts}]}, {"modalities": 1}, {"tools": deep}):
        for _ in range(3):  # one more than may be in flight
            assert post(running, json={**GOOD, **change}).status_code in {200, 400}, change
    assert post(running, json=GOOD).status_code == 200


def test_a_body_that_grows_past_the_limit_without_saying_so_is_refused(running: Gateway) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    try:
        reply = post(running, content=endless())
    except httpx.WriteError:
        pass  # the gateway answered and closed while we were still sending
    else:
        assert reply.status_code == 413
    assert post(running, json=GOOD).status_code == 200


def test_wrong_methods_and_addresses_are_openai_errors(running: Gateway) -> None:
    wrong_method = httpx.get(f"{running.base_url}/chat/completions", headers=AUTH)
    assert (wrong_method.status_code, wrong_method.json()["error"]["code"]) == (405, "method_not_allowed")
    nowhere = httpx.get(f"{running.base_url}/nowhere", headers=AUTH)
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_url")


ADMIN_PATHS = ["tenants", "models", "keys", "budgets", "limits", "members", "usage", "requests", "requests/req_1",
               "ledger/verify", "audit"]  # fmt: skip


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_every_admin_route_needs_the_admin_key(running: Gateway, path: str) -> None:
    url = f"{running.url}/admin/api/{path}"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=AUTH).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {ADMIN_KEY}"}).status_code in {200, 404}


def test_a_client_that_never_finishes_its_request_harms_nobody(running: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as half:
        half.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + KEY.encode()
            + b"\r\ncontent-length: 1000\r\n\r\n{"
        )
    assert post(running, json=GOOD).status_code == 200


def test_health_and_metrics_are_open_and_show_no_tenant(running: Gateway) -> None:
    for path in ("/health/live", "/healthz", "/health/ready", "/health/liveliness", "/health/readiness"):
        assert httpx.get(running.url + path).status_code == 200
    metrics = httpx.get(f"{running.url}/metrics").text
    assert "penstock_requests_total" in metrics
    for private in (KEY, "acme-tenant", "acme-key"):
        assert private not in metrics
