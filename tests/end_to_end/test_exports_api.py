"""The admin API of scheduled exports: what is scheduled without its secrets, runs in pages, and one on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.running import ADMIN_KEY, gateway, model

EXPORTS: list[dict[str, Any]] = [
    {"name": "finance", "kind": "focus", "to": "s3://finance/penstock",
     "s3": {"endpoint": "http://127.0.0.1:9", "access_key_id": "env:KEY", "secret_access_key": "hunter2"}},
    {"name": "days", "kind": "csv", "to": "days", "period": "day", "at": "01:30"},
]  # fmt: skip


def test_exports_are_listed_and_started_by_the_admin_api(tmp_path: Path) -> None:
    config = {"models": [model("small", "economy", "http://127.0.0.1:9/v1")], "exports": EXPORTS}
    with gateway(tmp_path, config) as running:
        key = {"Authorization": f"Bearer {ADMIN_KEY}"}
        base = f"{running.url}/admin/api/exports"
        shown = httpx.get(base, headers=key).json()
        assert [(each["name"], each["kind"], each["at"]) for each in shown["exports"]] == [
            ("finance", "focus", "04:00"), ("days", "csv", "01:30"),
        ]  # fmt: skip
        assert shown["exports"][0]["s3"] == {
            "endpoint": "http://127.0.0.1:9", "region": None, "path_style": None, "timeout_seconds": 60,
        }  # fmt: skip
        assert "hunter2" not in str(shown)

        asked = httpx.post(f"{base}/days/runs", params={"period": "2026-09-01"}, headers=key)
        assert (asked.status_code, asked.json()["period"], asked.json()["asked_by"]) == (202, "2026-09-01", "api")
        twice = httpx.post(f"{base}/finance/runs", params={"period": "2026-01"}, headers=key)
        assert twice.status_code == 202
        body = httpx.post(f"{base}/finance/runs", json={"period": "2026-02"}, headers=key)
        assert (body.status_code, body.json()["period"]) == (202, "2026-02")
        mistyped = httpx.post(f"{base}/finance/runs", json={"perid": "2026-03"}, headers=key)
        assert (mistyped.status_code, mistyped.json()["error"]["param"]) == (400, "perid")
        empty = httpx.post(f"{base}/finance/runs", json={"period": ""}, headers=key)
        assert (empty.status_code, empty.json()["error"]["param"]) == (400, "period")
        two: dict[str, Any] = {"params": {"period": "2026-03"}, "json": {"period": "2026-04"}}
        unsure = httpx.post(f"{base}/finance/runs", headers=key, **two)
        assert (unsure.status_code, unsure.json()["error"]["param"]) == (400, "period")
        assert "asks for '2026-03' and the body for '2026-04'" in unsure.json()["error"]["message"]
        unknown = httpx.post(f"{base}/nobody/runs", headers=key)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        wrong = httpx.post(f"{base}/days/runs", params={"period": "2026-09"}, headers=key)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "period")
        assert httpx.post(f"{base}/days/runs").status_code == 401

        first = httpx.get(base, params={"limit": 1}, headers=key).json()
        rest = httpx.get(base, params={"limit": 500, "before": first["next"]}, headers=key).json()
        assert "2026-09-01" in {run["period"] for run in rest["runs"]}
        assert first["runs"][0]["id"] not in {run["id"] for run in rest["runs"]}
        assert rest["next"] is None
        days = httpx.get(base, params={"name": "days"}, headers=key).json()["runs"]
        assert {run["name"] for run in days} == {"days"}
