"""A served request reaches another system, passes a budget's percentage and alerts its tenant, with the real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.mailbox import running_mailbox
from tests.receiver import SECRET, Receiver, running_receiver
from tests.running import ADMIN_KEY, KEY, gateway, model, upstream


def until(true: Callable[[], bool], what: str, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen:\n{log()}"
        time.sleep(0.1)


def of_kind(receiver: Receiver, kind: str) -> list[dict[str, Any]]:
    """What the receiver took of one kind; the scheduled job may be quicker with an alert than the test is."""
    return [event for event in receiver.taken if event["type"] == f"penstock.{kind}"]


def test_a_request_is_told_to_other_systems_and_alerts_its_tenant(tmp_path: Path) -> None:
    tokens = {"input": 1000, "output": 300, "reasoning": 100}
    with (
        running_receiver() as receiver,
        running_mailbox() as mailbox,
        upstream({"small": {"reply": "Paris.", "tokens": tokens}}) as scripted,
    ):
        hook = {"url": receiver.url, "secret": "env:HOOK_SECRET"}
        config = {
            "models": [model("small", "economy", scripted.url)],
            # 1000 x 1 + 200 x 2 + 100 x 4 USD per million
            "tenants": [
                {
                    "name": "acme",
                    "budget": {"limit_usd": 0.0036},
                    "alerts": {"at_percent": [50], "webhook": hook, "email": ["cfo@example.com"]},
                }
            ],
            "keys": [{"key": KEY, "name": "app", "tenant": "acme"}],
            "events": {"webhook": hook},
            "smtp": {"host": "127.0.0.1", "port": mailbox.port, "tls": "none", "from": "penstock@example.com"},
        }
        with gateway(tmp_path, config, HOOK_SECRET=SECRET) as running:
            with openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0) as client:
                client.chat.completions.create(
                    model="small", messages=[{"role": "user", "content": "Capital?"}], max_tokens=400
                )
            until(lambda: len(of_kind(receiver, "request.metered")) == 1, "the usage event", lambda: running.log)
            (told,) = of_kind(receiver, "request.metered")
            metered = running.event(told["id"])
            assert told["data"]["charge_pico"] == metered["charge_pico"] == 1_800_000_000
            assert told["data"]["buckets"] == metered["buckets"]
            assert told["data"]["buckets"]["reasoning"] == 100
            ran = running.json("jobs", "run", "budget-alerts")
            assert ran["result"] in ("1 budget alerts given, 0 ended", None)  # nothing where the schedule was quicker
            until(lambda: bool(of_kind(receiver, "alert.budget") and mailbox.mails), "the alert", lambda: running.log)
            (alert,) = of_kind(receiver, "alert.budget")
            told = alert["data"]
            assert (told["spent_usd"], told["limit_usd"], told["percent"]) == ("0.0018", "0.0036", 50)
            assert running.admin("alerts")["alerts"][0]["id"] == alert["id"]
            until(lambda: running.admin("events")["messages"] == [], "the empty outbox", lambda: running.log)
            jobs = {job["name"]: job for job in running.admin("jobs")["jobs"]}
            assert jobs["send"]["error"] is None
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            refused = httpx.post(f"{running.url}/admin/api/events/msg_x/retry", headers=headers, timeout=30)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
            wrong = httpx.get(f"{running.url}/admin/api/alerts?before=x", headers=headers, timeout=30)
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "before")
            assert httpx.get(f"{running.url}/admin/api/jobs", timeout=30).status_code == 401
        assert SECRET not in running.log
        assert receiver.forged == 0
