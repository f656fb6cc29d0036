"""The budget of shadow requests holds whatever the number of gateways, and a place that is ruled out stays ruled out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest
import redis

from tests.running import ADMIN_KEY, KEY, gateway, upstream
from tests.shadowing import LARGE_CHARGE, TOKENS, ask, configuration, outcomes, pairs, wait_for

SAME = {"small": {"reply": "42", "tokens": TOKENS}, "large": {"reply": "42", "tokens": TOKENS}}


@pytest.mark.timeout(180)
def test_gateways_that_share_counters_do_not_overspend_the_sample(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    budget = 20 * LARGE_CHARGE
    shared = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}
    with ExitStack() as stack:
        up = stack.enter_context(upstream(SAME))
        config = configuration(up.url, budget_usd=f"{budget / 10**12:.6f}", period="lifetime")
        running = [stack.enter_context(gateway(tmp_path / str(number), config, **shared)) for number in range(2)]
        with ThreadPoolExecutor(8) as threads:
            ids = list(threads.map(lambda number: ask(running[number % 2], max_tokens=50), range(120)))
        for each in running:
            wait_for(each, "budget", 1)
        deadline = time.monotonic() + 60
        counted: dict[str, int] = {}
        while sum(counted.values()) < len(ids):
            assert time.monotonic() < deadline, counted
            counted = {}
            for each in running:
                for outcome, count in outcomes(each).items():
                    counted[outcome] = counted.get(outcome, 0) + count
            time.sleep(0.2)
        assert counted["budget"] > 0
        made = pairs(running[0], counted["agreed"])
        with psycopg.connect(postgres_url) as connection:

            def sums(tenant: str) -> Any:
                large = "count(*) FILTER (WHERE model = 'large')"
                query = f"SELECT {large}, coalesce(sum(charge_pico), 0)::bigint FROM usage_events"
                return connection.execute(f"{query} WHERE tenant = '{tenant}'").fetchone()  # type: ignore[call-overload]

            asked, charged = sums("house")
            assert (asked, charged) == (len(made), len(made) * LARGE_CHARGE)
            assert 10 <= asked <= 20, "a hold is the worst case, so a little of the budget may be left"
            assert sums("acme")[0] == 0
            (held,) = connection.execute("SELECT count(*) FROM holds WHERE state = 'open'").fetchone() or (None,)
            assert held == 0
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            (counter,) = client.scan_iter("{penstock}:budget-lifetime*")
            assert int(client.get(counter) or 0) == charged, "what is not spent was given back"
        assert running[0].json("ledger", "verify")["ok"]
        # The operator sees that budget, and can raise it, like that of any key.
        listed = {key["name"]: key for key in running[0].admin("keys?tenant=house")}
        assert listed["shadow default"]["budgets"][0]["limit_usd"] == f"{budget / 10**12:g}"


def test_what_must_stay_in_the_house_is_not_sent_outside(tmp_path: Path) -> None:
    with upstream(SAME) as up:
        config = configuration(up.url)
        small, large = config["models"]
        config["models"] = [{**small, "local": True}, large]
        config["keys"].append(
            {"key": "sk-inside-0123456789", "name": "inside", "tenant": "acme", "routing": {"local_only": True}}
        )
        with gateway(tmp_path, config) as running:
            ask(running, extra_body={"penstock": {"local_only": True}})
            ask(running, key="sk-inside-0123456789")
            wait_for(running, "not_allowed", 2)
            assert "large" not in up.calls()["models"]
            ask(running)
            wait_for(running, "agreed", 1)
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            address = f"{running.url}/admin/api/policies/default"
            refused = httpx.put(address, json={"shadow": {"share": 1, "budget_usd": 1}}, headers=headers)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "shadow"), refused.text
            none = {"shadow": {**config["policies"]["default"]["shadow"], "share": 0}}
            httpx.put(address, json=none, headers=headers).raise_for_status()
            time.sleep(4)
            ask(running)
            assert outcomes(running) == {"agreed": 1, "not_allowed": 2}, "sampling is ended while the gateway runs"
            assert KEY not in running.log


def test_a_sample_uses_up_nothing_of_the_tenant_that_asked(tmp_path: Path) -> None:
    with upstream(SAME) as up:
        config = configuration(up.url)
        del config["policies"]["default"]["shadow"]["bill_to"]
        config["tenants"] = [{"name": "default", "limits": {"requests_per_minute": 600, "requests_per_day": 8}}]
        config["keys"] = [{"key": KEY, "name": "app", "tenant": "default"}]
        with gateway(tmp_path, config) as running:
            for done in range(1, 9):
                ask(running)
                wait_for(running, "agreed", done)
            with pytest.raises(openai.RateLimitError):
                ask(running)
            rows = running.json("usage", "--group-by", "tenant")["rows"]
            assert {row["tenant"]: row["requests"] for row in rows} == {"default": 9, "penstock-shadow": 8}, (
                "one was refused"
            )
            assert {pair["cost_pico"] for pair in pairs(running, 8)} == {LARGE_CHARGE}
            (key,) = running.admin("keys?tenant=penstock-shadow")
            assert (key["name"], key["budgets"][0]["limit_usd"]) == ("shadow default", "100")
            assert running.json("ledger", "verify")["ok"]
