"""A gateway with shared counters is killed while it answers: its budget has the money back within seconds, and not twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import openai
import redis

from gateway.store.redis import PREFIX
from tests.running import KEY, gateway, model, upstream

TOKENS = {"input": 100, "output": 50}
CHARGE = 100 * 1_000_000 + 50 * 2_000_000
COUNTER = f"{PREFIX}budget-lifetime/ever/tenant:acme"
SCRIPTS: dict[str, Any] = {
    "quick": {"reply": "hi", "tokens": TOKENS},
    "slow": {
        "behaviour": "slow",
        "reply": "a b",
        "tokens": TOKENS,
        "first_token_seconds": 0.05,
        "per_token_seconds": 60,
    },
}


def test_what_a_killed_worker_held_can_be_spent_again(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
    with upstream(SCRIPTS) as scripted, redis.Redis.from_url(redis_url) as counters:

        def value() -> int:
            return int(counters.get(COUNTER) or 0)

        config = {
            "models": [model("quick", "economy", scripted.url), model("slow", "economy", scripted.url)],
            # Room for one request at its worst, not for two.
            "tenants": [{"name": "acme", "budget": {"limit_usd": 0.0004, "period": "lifetime"}}],
            "keys": [{"key": KEY, "name": "app", "tenant": "acme"}],
        }
        environment = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
        with gateway(tmp_path, config, **environment) as running:
            client = openai.OpenAI(base_url=running.base_url, api_key=KEY, max_retries=0, timeout=30)
            stream = client.chat.completions.create(model="slow", stream=True, **question)
            next(iter(stream))
            held = value()
            assert held > 200_000_000
            worker = next(
                int(folder.name)
                for folder in Path("/proc").iterdir()
                if folder.name.isdigit()
                and b"\0worker\0" in (folder / "cmdline").read_bytes()
                and f"PENSTOCK_PORT={running.port}".encode() in (folder / "environ").read_bytes().split(b"\0")
            )
            os.kill(worker, signal.SIGKILL)
            answered = None
            deadline = time.monotonic() + 60
            while answered is None:
                assert time.monotonic() < deadline, running.log
                try:
                    answered = client.chat.completions.create(model="quick", **question)
                except openai.APIError:  # the worker is starting again, or the budget is still held
                    time.sleep(0.2)
            while "1 orphaned holds given back" not in running.log:  # what a process says arrives a moment later
                assert time.monotonic() < deadline, running.log
                time.sleep(0.1)
            while value() != CHARGE:
                assert time.monotonic() < deadline, f"{value()} of {held}"
                time.sleep(0.1)
            jobs = {job["name"]: job for job in running.admin("jobs")["jobs"]}
            assert jobs["give-back"]["error"] is None
            verified = running.json("ledger", "verify")
            assert verified["ok"] is True, verified
            client.close()
