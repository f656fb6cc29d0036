"""One reconciliation as tests run it: a bill of rows is imported and compared, and its sums are checked each time."""

from __future__ import annotations

from gateway.billing.periods.month import Month
from gateway.billing.reconcile.lines import Settings
from gateway.billing.reconcile.read import read_bill
from gateway.billing.reconcile.runs import Tolerances, import_bill, reconcile
from gateway.billing.reconcile.show import Run
from gateway.db.connect import Database
from tests.provider_bills import Row, as_csv, at

SEPTEMBER = Month(2026, 9)
NOW = at("2026-10-05T09:00")
EXACT = Tolerances(rounding=0, variance=0)


def run_with(database: Database, rows: list[Row], tolerances: Tolerances = EXACT, **how: object) -> Run:
    bill = read_bill("openai", SEPTEMBER, [as_csv(rows)], settings=Settings(**how))  # type: ignore[arg-type]
    import_bill(database, bill, NOW, "fin", replace=True)
    run = reconcile(database, "openai", SEPTEMBER, tolerances, NOW, "fin")
    assert sum(each.variance_pico for each in run.findings) == run.bill_pico - run.book_pico
    assert sorted(line for each in run.findings for line in each.bill_lines) == list(range(1, len(rows) + 1))
    return run


def found(run: Run) -> dict[str, int]:
    """Variance by class, of what differs."""
    sums: dict[str, int] = {}
    for each in run.findings:
        if each.kind != "agreed":
            sums[each.kind] = sums.get(each.kind, 0) + each.variance_pico
    return sums
