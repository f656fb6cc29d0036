"""The general ledger's journal: one line per day, account and side. Debits equal credits, or nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date

from gateway.billing.exports.columns import Column, Row, decimal
from gateway.billing.exports.queries import JournalLine
from gateway.errors import StartupError

USD_SCALE = 17
PICO_PLACES = 12
JOURNAL = (
    Column("date"),
    Column("transaction_kind"),
    Column("account"),
    Column("account_kind"),
    Column("owner"),
    Column("debit_usd", "decimal", USD_SCALE),
    Column("credit_usd", "decimal", USD_SCALE),
    Column("currency"),
    Column("transactions", "integer"),
    Column("description"),
)


def journal_rows(lines: Iterable[JournalLine]) -> Iterator[Row]:
    """A row per side that has an amount; the other side is zero."""
    for line in lines:
        for debit, credit in ((line.debit, 0), (0, line.credit)):
            if debit or credit:
                yield (
                    line.day.isoformat(),
                    line.kind,
                    line.account,
                    line.account_kind,
                    line.owner,
                    decimal(debit, PICO_PLACES),
                    decimal(credit, PICO_PLACES),
                    "USD",
                    line.transactions,
                    f"{line.kind} {line.day.isoformat()} {line.account}",
                )


def check_balance(lines: Iterable[JournalLine]) -> None:
    """Raises StartupError for the first day whose debits and credits differ."""
    differences: dict[date, int] = defaultdict(int)
    for line in lines:
        differences[line.day] += line.debit - line.credit
    for day, difference in differences.items():
        if difference:
            raise StartupError(
                f"the journal of {day.isoformat()} is out of balance by {difference} pico-USD. Nothing was written; run "
                "`penstock ledger verify` to see what is wrong."
            )
