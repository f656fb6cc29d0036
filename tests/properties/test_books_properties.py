"""The books under any mix of usage, unpriced usage, prices, corrections, credits, invoices, voids and credit notes: after every
step each transaction sums to zero and nothing is lost, made up or billed twice.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select

from gateway.billing.cost import rate_usage
from gateway.billing.grants.give import NewGrant, expire_grants, give, list_grants
from gateway.billing.invoices.credit import credit_invoice
from gateway.billing.invoices.issue import close_period, void_invoice
from gateway.billing.invoices.show import list_invoices
from gateway.billing.ledger import entries_of, verify
from gateway.billing.periods.month import Month
from gateway.billing.prices.queries import write_prices
from gateway.billing.unpriced.correct import Waiting, correction
from gateway.db.connect import Database, connect
from gateway.db.migrate import migrate
from gateway.db.tables import holds, ledger_accounts, ledger_entries
from gateway.db.transaction import snapshot
from gateway.errors import Conflict
from gateway.jobs.rate_unpriced import rate_unpriced
from gateway.money import PICO_PER_CENT, divide_rounding, percent_of
from gateway.reports.usage.report import usage_report
from gateway.types import METERS, UNPRICED_SHEET, PriceSheet, Usage, UsageEvent
from tests.builders import catalog, model
from tests.invoicing import deliver, parties, price
from tests.pricing import pair
from tests.usage import attempt, event, owed

TENANTS = ("acme", "globex")
CATALOG = catalog(
    model("new", price="book", provider="openai", base_url="http://127.0.0.1:1/v1"),
    tenants=[{"name": name} for name in TENANTS],
    policies={"default": {"unpriced": "hold"}},
)
usages = st.builds(Usage, input=st.integers(1, 400_000), cache_read=st.integers(0, 9), reasoning=st.integers(0, 90_000))
tenants = st.sampled_from(TENANTS)
late = st.sampled_from([0, 0, 10, 45])
FIRST = datetime(2026, 10, 1, tzinfo=UTC)


class Books(RuleBasedStateMachine):
    """One database on which anything may happen, and what should have come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.database: Database = connect(f"sqlite:///{self.path / 'books.db'}")
        migrate(self.database)
        self.now = FIRST
        self.charged: Counter[str] = Counter()
        """Pico-USD of everything whose price is known, by tenant."""
        self.unpriced: list[UsageEvent] = []
        self.delivered: list[UsageEvent] = []
        self.price: int | None = None

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        give(self.database, NewGrant("acme", 700, "welcome", expires_at=self.now + timedelta(days=40)), self.now)

    def _deliver(self, tenant: str, ago: int, calls: list[Any], **changes: Any) -> UsageEvent:
        """A request that started so many days ago, whose month may be closed by now."""
        started = max(FIRST, self.now - timedelta(days=ago)).timestamp()
        made = event(*calls, tenant=tenant, started_at=started, finished_at=started + 1, **changes)
        deliver(self.database, self.path, made)
        self.delivered.append(made)
        return made

    @rule(tenant=tenants, usage=usages, usd=st.integers(1, 90), ago=late)
    def use(self, tenant: str, usage: Usage, usd: int, ago: int) -> None:
        rated = rate_usage(usage, price(usd))
        calls = [attempt(1, Usage(), status="error"), attempt(2, usage, cost=rated, charge=rated)]
        self._deliver(tenant, ago, calls)
        self.charged[tenant] += rated.total

    @precondition(lambda self: self.price is None)
    @rule(tenant=tenants, usage=usages, ago=late)
    def use_without_a_price(self, tenant: str, usage: Usage, ago: int) -> None:
        rated = rate_usage(usage, UNPRICED_SHEET.plain)
        call = attempt(
            1, usage, model="new", upstream_model="new", cost=rated, charge=rated, reserved=5 * PICO_PER_CENT
        )
        self.unpriced.append(self._deliver(tenant, ago, [call], model="new"))

    @precondition(lambda self: self.price is None)
    @rule(usd=st.integers(1, 90))
    def price_it(self, usd: int) -> None:
        write_prices(self.database, pair(usd, usd, model="new", valid_from=self.now), [], self.now)
        self.price = usd

    @rule()
    def rate(self) -> None:
        done = rate_unpriced(self.database, CATALOG, self.now.timestamp())
        if self.price is None:
            assert (done.calls, done.waiting.total()) == (0, len(self.unpriced))
            return
        assert done.calls == len(self.unpriced)
        for late in self.unpriced:
            self.charged[late.tenant] += rate_usage(late.attempts[0].usage, price(self.price)).total
        self.unpriced = []

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        deliver(self.database, self.path, *data.draw(st.lists(st.sampled_from(self.delivered), max_size=4)))

    @rule(tenant=tenants, cents=st.integers(1, 3000), lasting=st.integers(1, 90), priority=st.integers(0, 3))
    def credit(self, tenant: str, cents: int, lasting: int, priority: int) -> None:
        give(
            self.database,
            NewGrant(tenant, cents, "x", priority, expires_at=self.now + timedelta(days=lasting)),
            self.now,
        )

    @precondition(lambda self: self.delivered)
    @rule(closing=st.sets(tenants))
    def end_month(self, closing: set[str]) -> None:
        """Begin the next month, and close for some tenants the first month that can be closed."""
        self.now = Month(self.now.year, self.now.month).next.start
        for tenant in sorted(closing):
            month = Month(2026, 10)
            while month < Month(self.now.year, self.now.month):
                with suppress(Conflict):  # closed already, or nothing in it
                    close_period(self.database, tenant, month, parties(), self.now)
                    break
                month = month.next

    def _finalised(self) -> list[str]:
        return [str(invoice.number) for invoice in list_invoices(self.database) if invoice.state == "finalised"]

    @precondition(lambda self: self._finalised())
    @rule(data=st.data(), cents=st.integers(1, 500))
    def give_back(self, data: st.DataObject, cents: int) -> None:
        with suppress(Conflict):  # more than is left of it
            credit_invoice(self.database, data.draw(st.sampled_from(self._finalised())), cents, "x", self.now)

    @precondition(lambda self: self._finalised())
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        with suppress(Conflict):  # it has credit notes, or a later month is closed
            void_invoice(self.database, data.draw(st.sampled_from(self._finalised())), "x", self.now)

    @rule()
    def expire(self) -> None:
        expire_grants(self.database, self.now)

    @invariant()
    def every_transaction_sums_to_zero(self) -> None:
        total = func.sum(ledger_entries.c.amount_pico)
        query = select(ledger_entries.c.transaction_id).group_by(ledger_entries.c.transaction_id).having(total != 0)
        with snapshot(self.database) as connection:
            assert connection.execute(query).all() == []
        assert verify(self.database, self.path).problems == ()

    @invariant()
    def the_ledger_has_what_was_used_and_nothing_else(self) -> None:
        assert usage_report(self.database, None, None, ()).total.charge_pico == self.charged.total()
        query = (
            select(ledger_accounts.c.owner, func.sum(ledger_entries.c.amount_pico))
            .join(ledger_entries, ledger_entries.c.account_id == ledger_accounts.c.id)
            .where(ledger_accounts.c.kind == "revenue")
            .group_by(ledger_accounts.c.owner)
        )
        with snapshot(self.database) as connection:
            assert -sum(amount for _, amount in connection.execute(query)) == self.charged.total()

    @invariant()
    def what_waits_for_a_price_is_held_and_nothing_else(self) -> None:
        expected = Counter(self.charged)
        for late in self.unpriced:
            expected[late.tenant] += late.reserved
        assert +Counter(owed(self.database)) == +expected
        with snapshot(self.database) as connection:
            count = select(func.count()).where(holds.c.state == "open")
            assert connection.scalar(count) == len(self.unpriced)

    @invariant()
    def no_credit_is_worth_more_than_was_given_or_less_than_nothing(self) -> None:
        for grant in list_grants(self.database):
            assert 0 <= grant.left_cents <= grant.amount_cents


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

rates = st.integers(0, 100 * 10**12)
sheets = st.builds(lambda usd: PriceSheet.flat(price(usd)), st.integers(0, 99))
any_usage = st.builds(Usage, **dict.fromkeys(METERS, st.integers(0, 500_000)))


@given(any_usage, sheets, sheets, st.booleans())
def test_a_correction_adds_the_money_of_the_price_and_no_tokens(
    usage: Usage, cost: PriceSheet, charge: PriceSheet, charged: bool
) -> None:
    request = {
        "tenant": "acme", "key_id": "k", "key_name": "k", "project": None, "end_user": None, "session_id": None,
        "tags": (), "requested_model": "m", "tier": None, "streamed": False,
    }  # fmt: skip
    made = correction(Waiting("req", 1, request, 0.0, "m", "p", "u", None, usage, charged), cost, charge, 1.0)
    assert all(sum(getattr(call.usage, meter) for call in made.attempts) == 0 for meter in METERS)
    assert made.cost == rate_usage(usage, cost.plain).total
    assert made.charge == (0 if charged else rate_usage(usage, charge.plain).total)
    entries = entries_of(made)
    assert sum(entries.values()) == 0
    lines: Counter[tuple[str, str]] = Counter()
    for call in made.attempts:
        for book, rated in (("cost", call.cost), ("charge", call.charge)):
            for line in rated.lines:
                lines[book, line.meter] += line.quantity
    assert set(lines.values()) <= {0}


@given(st.integers(-(10**24), 10**24), st.integers(1, 10**13))
def test_the_one_rounding_is_to_the_nearest_and_a_half_goes_away_from_zero(numerator: int, denominator: int) -> None:
    rounded, exact = divide_rounding(numerator, denominator), Fraction(numerator, denominator)
    assert abs(rounded - exact) <= Fraction(1, 2)
    if abs(rounded - exact) == Fraction(1, 2):
        assert abs(rounded) > abs(exact)
    assert divide_rounding(-numerator, denominator) == -rounded


@given(st.integers(-1000, 1000), st.integers(1, 500))
def test_a_half_is_always_met(whole: int, half: int) -> None:
    """Random numbers hardly ever lie in the middle; these always do."""
    numerator, denominator = whole * 2 * half + half, 2 * half
    assert divide_rounding(numerator, denominator) == (whole + 1 if numerator > 0 else whole)


@given(st.integers(0, 10**9), st.decimals(0, 100, places=4))
def test_a_percentage_is_the_nearest_cent(cents: int, percent: Any) -> None:
    exact = Fraction(cents) * Fraction(percent) / 100
    assert abs(percent_of(cents, percent) - exact) <= Fraction(1, 2)
    assert percent_of(-cents, percent) == -percent_of(cents, percent)
