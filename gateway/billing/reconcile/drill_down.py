"""The requests behind a finding: what our book has in the cells that were compared, nearest to the variance first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from gateway.billing.reconcile import queries
from gateway.billing.reconcile.runs import aligned_book
from gateway.billing.reconcile.show import Found, find_finding, load_run
from gateway.db.connect import Database
from gateway.db.transaction import snapshot
from gateway.money import format_usd

LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Behind:
    """Bill lines and requests of one finding; `more` says whether requests were left out."""

    finding: Found
    bill_lines: tuple[dict[str, Any], ...]
    requests: tuple[dict[str, Any], ...]
    more: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "finding": self.finding.as_dict(),
            "bill_lines": list(self.bill_lines),
            "requests": list(self.requests),
            "more": self.more,
        }


def behind(database: Database, run_id: str, number: int, limit: int = 100) -> Behind:
    """What one finding is made of. Requests whose amount is nearest to the variance come first: a missing one is seen at once.

    Raises UnknownDocument. The book is read as it is now.
    """
    limit = max(1, min(limit, LARGEST_PAGE))
    with snapshot(database) as connection:
        run = load_run(connection, run_id)
        found = find_finding(run, number)
        lines = queries.bill_lines(connection, run.bill_id)
        amounts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        if found.cells:
            days = [date.fromisoformat(cell[0]) for cell in found.cells]
            bill = queries.find_bill(connection, run.bill_id)
            wanted = {cell[:4] for cell in found.cells}
            requests = {cell[4] for cell in found.cells if cell[4]}
            book, _ = aligned_book(connection, bill, lines, by_request=True, days=[min(days), max(days)])
            for line in book:
                if (line.day.isoformat(), line.model, line.meter, line.tier) in wanted and line.request_id is not None:
                    if requests and line.request_id not in requests:
                        continue
                    amounts[line.request_id][0] += line.quantity
                    amounts[line.request_id][1] += line.amount
    size = abs(found.variance_pico)
    order = sorted(amounts.items(), key=lambda item: (abs(item[1][1] - size), item[0]))
    return Behind(
        found,
        tuple(_bill_line(line) for line in lines if line.position in set(found.bill_lines)),
        tuple(
            {"request_id": name, "quantity": units, "amount_pico": pico, "amount_usd": format_usd(pico)}
            for name, (units, pico) in order[:limit]
        ),
        len(order) > limit,
    )


def _bill_line(line: Any) -> dict[str, Any]:
    return {
        "line": line.position,
        "day": line.day.isoformat(),
        "model": line.model,
        "meter": line.meter,
        "tier": line.tier,
        "quantity": line.quantity,
        "usd_per_million": format_usd(line.rate) if line.rate is not None else None,
        "amount_usd": format_usd(line.amount),
        "account": line.account,
        "request_id": line.request_id,
        "description": line.description,
    }
