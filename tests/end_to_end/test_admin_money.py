"""/admin/api/invoices and /admin/api/reconciliation of a running gateway: what finance reads and decides without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import httpx
import pypdf
import pytest

from gateway.billing.invoices.issue import close_period, draft_invoice
from gateway.billing.periods.month import Month
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.db.connect import connect
from gateway.db.migrate import migrate
from gateway.types import Usage
from tests.invoicing import deliver, parties, used
from tests.provider_bills import as_csv, rows_of
from tests.running import ADMIN_KEY, gateway, model

SEPTEMBER = Month(2026, 9)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the admin API of a gateway with an invoiced and reconciled month; the bill asks 5 USD more."""
    folder = tmp_path_factory.mktemp("money")
    url = f"sqlite:///{folder / 'penstock.db'}"
    database = connect(url)
    migrate(database)
    deliver(database, folder, used("2026-09-05", Usage(input=10**6)), used("2026-09-07", Usage(output=10**6)))
    now = datetime.now(UTC)
    close_period(database, "acme", SEPTEMBER, parties(name="Acme Corp."), now)
    rows = rows_of(database, SEPTEMBER)
    rows[1].reprice(rows[1].rate * 2)
    import_bill(database, read_bill("openai", SEPTEMBER, [as_csv(rows)]), now, "Ada")
    reconcile(database, "openai", SEPTEMBER, Tolerances(0, 0), now, "Ada")
    deliver(database, folder, used("2026-10-05", Usage(input=10**6)))
    draft_invoice(database, "acme", Month(2026, 10), parties(name="Acme Corp."), now)
    database.close()
    config = {"models": [model("m", "economy", "http://127.0.0.1:9/v1")], "tenants": [{"name": "acme"}]}
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    with (
        gateway(folder / "gateway", config, DATABASE_URL=url) as running,
        httpx.Client(base_url=f"{running.url}/admin/api", headers=headers, timeout=30) as client,
    ):
        yield client


def refused(reply: httpx.Response) -> tuple[int, str, str]:
    error: dict[str, Any] = reply.json()["error"]
    return reply.status_code, error["code"], error["message"]


def test_invoices_are_listed_shown_and_printed(admin: httpx.Client) -> None:
    [listed] = admin.get("/invoices", params={"tenant": "acme", "period": "2026-09"}).json()["invoices"]
    assert (listed["number"], listed["total"]) == ("INV-000001", "24.00")
    assert admin.get("/invoices", params={"period": "2026-08"}).json() == {"invoices": []}
    shown = admin.get("/invoices/INV-000001").json()
    assert [line["quantity"] for line in shown["lines"]] == [10**6, 10**6, None]
    page = admin.get("/invoices/INV-000001/lines/1/requests").json()
    assert [request["amount_usd"] for request in page["requests"]] == ["10"]
    reply = admin.get("/invoices/INV-000001/pdf")
    assert reply.headers["content-type"] == "application/pdf"
    assert "Acme Corp." in pypdf.PdfReader(BytesIO(reply.content)).pages[0].extract_text()
    assert refused(admin.get("/invoices/INV-7"))[:2] == (404, "document_not_found")
    assert refused(admin.get("/invoices/INV-000001/lines/3/requests"))[:2] == (400, "invalid_value")
    assert refused(admin.get("/invoices", params={"period": "2026"})) == (
        400, "invalid_value", "'2026' is not a billing period; write a month as YYYY-MM, for example 2026-11.",
    )  # fmt: skip


def test_drafts_are_for_the_operator_and_developers_read_no_invoices(admin: httpx.Client) -> None:
    def answer(role: str, address: str) -> httpx.Response:
        body = {"name": f"{role} {address}", "role": role, "tenant": "acme"}
        token = admin.post("/members", json=body).json()["token"]
        return admin.get(address, headers={"authorization": f"Bearer {token}"})

    listed = admin.get("/invoices").json()["invoices"]
    [drafted] = [each["id"] for each in listed if each["state"] == "draft"]
    assert [each["state"] for each in answer("viewer", "/invoices").json()["invoices"]] == ["finalised"]
    draft = f"/invoices/{drafted}"
    for address in (draft, f"{draft}/lines/1/requests", f"{draft}/pdf"):
        assert admin.get(address).status_code == 200
        assert refused(answer("owner", address))[:2] == (404, "document_not_found")
    assert refused(answer("developer", "/invoices"))[0] == 403


def test_a_month_is_reconciled_and_signed_off(admin: httpx.Client) -> None:
    [run] = admin.get("/reconciliation/runs", params={"provider": "openai"}).json()["runs"]
    assert (run["variance_usd"], run["open_usd"]) == ("5", "5")
    found = admin.get(f"/reconciliation/runs/{run['id']}").json()
    [finding] = found["findings"]
    assert finding["class"] == "price"
    agreed = admin.get(f"/reconciliation/runs/{run['id']}", params={"class": "agreed"}).json()["findings"]
    assert [each["variance_usd"] for each in agreed] == ["0"]
    address = f"/reconciliation/runs/{run['id']}/findings/{finding['number']}"
    assert [each["quantity"] for each in admin.get(address).json()["requests"]] == [10**6]
    month = {"kind": "provider", "owner": "openai", "period": "2026-09", "by": "Ada"}
    status, code, message = refused(admin.post("/reconciliation/sign-offs", json=month))
    assert (status, code) == (409, "conflict")
    assert "5 USD of variance in 1 findings" in message
    decisions = f"/reconciliation/runs/{run['id']}/decisions"
    wrong = {"reason": "checked", "by": "Ada"}
    assert refused(admin.post(decisions, json=wrong))[:2] == (400, "invalid_value")
    assert refused(admin.post(decisions, json={**wrong, "findings": [99]}))[:2] == (404, "document_not_found")
    assert refused(admin.post(decisions, json={**wrong, "findings": [1], "note": 1}))[:2] == (400, "invalid_value")
    assert refused(admin.post(decisions, json={**wrong, "class": "tier"}))[:2] == (400, "invalid_value")
    decided = admin.post(decisions, json={**wrong, "class": "price"}).json()
    assert (decided["accepted_usd"], decided["open_usd"]) == ("5", "0")
    signed = admin.post("/reconciliation/sign-offs", json=month).json()
    assert (signed["signed_by"], signed["changes"]) == ("Ada", {})
    assert refused(admin.post("/reconciliation/sign-offs", json=month))[0] == 409
    listed = admin.get("/reconciliation/sign-offs", params={"kind": "provider", "period": "2026-09"}).json()
    assert [each["id"] for each in listed["sign_offs"]] == [signed["id"]]
    audited = [
        entry for entry in admin.get("/audit").json()["entries"] if entry["action"].startswith("reconciliation.")
    ]
    assert [(entry["actor"], entry["action"], entry["object"]) for entry in audited] == [
        ("admin key", "reconciliation.sign_off", "provider openai 2026-09"),
        ("admin key", "reconciliation.accept", run["id"]),
    ]
    assert admin.get("/ledger/verify").json()["ok"]


def test_nobody_without_the_admin_key_sees_money(admin: httpx.Client) -> None:
    for address in ("/invoices", "/reconciliation/runs", "/reconciliation/sign-offs"):
        assert httpx.get(f"{admin.base_url}{address.lstrip('/')}", timeout=30).status_code == 401
