"""A signed month whose requests retention has removed: its totals stay what they were, and it cannot be compared again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.billing.invoices.issue import close_period, tenants_to_close
from gateway.billing.ledger import verify
from gateway.billing.reconcile.runs import reconcile
from gateway.billing.reconcile.sign_off import list_sign_offs, sign_off
from gateway.billing.retention.remove import apply
from gateway.config import Retention
from gateway.db.connect import Database
from gateway.errors import Conflict
from tests.invoicing import parties
from tests.provider_bills import rows_of
from tests.reconciling import EXACT, SEPTEMBER, run_with


def test_a_signed_month_outlives_its_requests(books: Database, tmp_path: Path) -> None:
    run_with(books, rows_of(books, SEPTEMBER))
    now = datetime.now(UTC)
    for month in (SEPTEMBER.__class__(2026, 8), SEPTEMBER):
        for tenant in tenants_to_close(books, month):
            close_period(books, tenant, month, parties(), now)
    sign_off(books, "provider", "openai", SEPTEMBER, "Fin", "", now)
    sign_off(books, "tenant", "acme", SEPTEMBER, "Fin", "", now)
    removed = apply(books, Retention(requests_days=31), now)
    assert [(str(each.month), each.needed) for each in removed.requests] == [("2026-08", ()), ("2026-09", ())]
    assert [each.changes for each in list_sign_offs(books)] == [{}, {}]
    with pytest.raises(Conflict, match="have been removed by retention, so 2026-09 cannot be reconciled any more"):
        reconcile(books, "openai", SEPTEMBER, EXACT, now, "Fin")
    assert verify(books, tmp_path / "spool").problems == ()
