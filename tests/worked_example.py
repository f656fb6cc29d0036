"""The worked example of docs/billing.md: its prices, its usage and its page, for the tests that recompute every number."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sqlalchemy import select

from gateway.billing.cost import rate_usage
from gateway.billing.prices.choose import marked_up
from gateway.catalog import Catalog
from gateway.db.connect import Database
from gateway.db.tables import ledger_accounts, ledger_entries, ledger_transactions
from gateway.db.transaction import snapshot
from gateway.metering.normalise import normalise
from gateway.types import Usage, UsageEvent, usage_fields
from tests.builders import catalog, model, sheets
from tests.invoicing import day
from tests.usage import attempt, event

PAGE = (Path(__file__).parents[1] / "docs" / "billing.md").read_text(encoding="utf-8")


def example() -> tuple[Catalog, Usage]:
    """The prices and the usage of the page."""
    made = catalog(
        model("gpt", price={"input": 2.5, "cached_input": 1.25, "output": 10}),
        tenants=[{"name": "acme", "price_plan": {"markup_percent": 20}}],
    )
    [raw] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return made, normalise(json.loads(raw))


def number(pattern: str) -> int:
    """A whole number that the page names."""
    [found] = re.findall(pattern, PAGE)
    return int(found.replace(",", ""))


def many(times: int, at: str) -> UsageEvent:
    """One request with the tokens of many: amounts are exact, so it is charged what they are."""
    made, usage = example()
    whole = Usage(**{name: getattr(usage, name) * times for name in usage_fields()})
    paid = marked_up(sheets(made)[0], made.tenants["acme"].markup_percent).plain
    charge = rate_usage(whole, paid)
    assert charge.total == times * rate_usage(usage, paid).total
    cost = rate_usage(whole, sheets(made)[0].plain)
    call = attempt(1, whole, model="gpt", upstream_model="gpt", charge=charge, cost=cost)
    started = day(at).timestamp()
    return event(call, started_at=started, finished_at=started + 1)


def entries(database: Database, *kinds: str) -> list[tuple[str, str, int]]:
    """(kind, account, pico-USD) of all transactions of some kinds."""
    query = (
        select(ledger_transactions.c.kind, ledger_accounts.c.name, ledger_entries.c.amount_pico)
        .join(ledger_entries, ledger_entries.c.transaction_id == ledger_transactions.c.id)
        .join(ledger_accounts, ledger_accounts.c.id == ledger_entries.c.account_id)
        .where(ledger_transactions.c.kind.in_(kinds))
    )
    with snapshot(database) as connection:
        found = [(kind, account, amount) for kind, account, amount in connection.execute(query)]
    assert found
    return found
