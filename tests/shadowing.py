"""A gateway that asks another tier as well: its configuration, its shadow answers, its metrics, and a judge that reads."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import openai

from tests.running import KEY, Gateway, model

TOKENS = {"input": 100, "output": 50}
SMALL_CHARGE = 100 * 1_000_000 + 50 * 2_000_000
LARGE_CHARGE = 10 * SMALL_CHARGE


def configuration(url: str, judge_url: str | None = None, **rule: Any) -> dict[str, Any]:
    """An economy and a premium model; everything that asks for auto gets the cheap one, and is sampled by `rule`."""
    models = [model("small", "economy", url), model("large", "premium", url, price={"input": 10, "output": 20})]
    if judge_url is not None:
        models.append(model("judge", "standard", judge_url))
    shadow = {"share": 1, "budget_usd": 100, "bill_to": "house", **rule}
    return {
        "models": models,
        "policies": {"default": {"min_quality": 0, "unfamiliar": "choose", "shadow": shadow}},
        "tenants": [{"name": "house"}, {"name": "acme", "price_plan": {"markup_percent": 50}}],
        "keys": [{"key": KEY, "name": "app", "tenant": "acme"}],
    }


def ask(running: Gateway, text: str = "hello", **changes: Any) -> str:
    """One question to `auto`, read to its end; its id."""
    with openai.OpenAI(base_url=running.base_url, api_key=changes.pop("key", KEY), max_retries=0, timeout=30) as client:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **changes}
        with client.chat.completions.with_streaming_response.create(**body) as raw:
            raw.read()
            return str(raw.headers["x-penstock-request-id"])


def pairs(running: Gateway, expected: int, status: str = "all") -> list[dict[str, Any]]:
    """Shadow answers, once there are as many as expected."""
    deadline = time.monotonic() + 60
    while True:
        found: list[dict[str, Any]] = running.admin(f"shadow?status={status}&limit=500")["pairs"]
        if len(found) >= expected:
            assert len(found) == expected, found
            return found
        assert time.monotonic() < deadline, f"{found}\n{outcomes(running)}\n{running.log}"
        time.sleep(0.1)


def scores(running: Gateway, request_id: str) -> dict[str, float]:
    """The labels of a request by model."""
    return {label["model"]: label["score"] for label in running.admin(f"requests/{request_id}/labels")}


def outcomes(running: Gateway) -> dict[str, int]:
    """What the metrics say of sampled requests."""
    text = httpx.get(f"{running.url}/metrics", timeout=60).text
    found = re.findall(r'^penstock_shadow_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {outcome: int(float(count)) for outcome, count in found}


def wait_for(running: Gateway, outcome: str, count: int) -> dict[str, int]:
    """The metrics, once an outcome has been seen so often."""
    deadline = time.monotonic() + 60
    while (found := outcomes(running)).get(outcome, 0) < count:
        assert time.monotonic() < deadline, f"{found}\n{running.log}"
        time.sleep(0.1)
    return found


@contextmanager
def reading_judge(favourite: str, *, says: str | None = None) -> Iterator[str]:
    """A chat model over HTTP that prefers the answer with a word in it, whichever place it has; or always says the same."""

    class Judge(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = body["messages"][-1]["content"]
            first = text.split("[answer A]")[1].split("[end of answer A]")[0]
            verdict = says or ("A" if favourite in first else "B")
            choice = {"index": 0, "message": {"role": "assistant", "content": verdict}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
            document = {"id": "j", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}
            data = json.dumps({**document, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
