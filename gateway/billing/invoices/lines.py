"""From sums of usage to the lines and totals of an invoice (pure). Each line is rounded once; totals are sums of lines.

The difference between the exact amounts and the rounded lines is kept with the invoice and booked in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from gateway.billing.grants.burn_down import Draw
from gateway.billing.periods.month import Month
from gateway.money import PICO_PER_CENT, format_usd, percent_of, to_cents
from gateway.types import METERS, Meter

LineKind = Literal["usage", "correction", "credit", "tax"]
UNITS: dict[str, str] = {"gpu_seconds": "microseconds"}


@dataclass(frozen=True, slots=True)
class UsageSum:
    """All rated lines of one model, meter and rate in one month: quantity and exact amount (pico-USD)."""

    charge_period: Month
    model: str
    meter: Meter
    rate: int
    quantity: int
    amount_pico: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line. Usage has a quantity at a rate (pico-USD per million units); a correction is usage of an earlier month that
    came after it was closed; a credit is what a grant pays, negative; tax comes last. The lines sum to the total.
    """

    kind: LineKind
    description: str
    amount_pico: int
    amount_cents: int
    charge_period: Month | None = None
    model: str | None = None
    meter: Meter | None = None
    rate: int | None = None
    quantity: int | None = None
    grant_id: str | None = None

    @property
    def unit_price(self) -> str:
        """USD per million units (per second of GPU time), exact; empty for credits and tax."""
        return "" if self.rate is None else format_usd(self.rate)


@dataclass(frozen=True, slots=True)
class Totals:
    """What the lines add up to. `usage_pico` is exact, `credits_cents` is negative or zero."""

    usage_pico: int
    usage_cents: int
    credits_cents: int
    tax_cents: int

    @property
    def net_cents(self) -> int:
        """What is taxed: usage less credits."""
        return self.usage_cents + self.credits_cents

    @property
    def total_cents(self) -> int:
        """What is due."""
        return self.net_cents + self.tax_cents

    @property
    def rounding_pico(self) -> int:
        """What rounding the lines to cents added to the exact amounts."""
        return self.usage_cents * PICO_PER_CENT - self.usage_pico


def usage_lines(sums: Iterable[UsageSum], period: Month) -> tuple[Line, ...]:
    """One line per sum: the period's own usage first, then corrections by month; by model, meter and rate within."""

    def order(each: UsageSum) -> tuple[bool, Month, str, int, int]:
        return each.charge_period != period, each.charge_period, each.model, METERS.index(each.meter), each.rate

    return tuple(_usage_line(each, period) for each in sorted(sums, key=order))


def credit_lines(draws: Sequence[Draw]) -> tuple[Line, ...]:
    """One line per grant that pays, in the order in which they are drawn."""
    return tuple(
        Line(
            kind="credit",
            description=f"Credit: {draw.grant.reason}",
            amount_pico=-draw.cents * PICO_PER_CENT,
            amount_cents=-draw.cents,
            grant_id=draw.grant.id,
        )
        for draw in draws
    )


def tax_lines(net_cents: int, percent: Decimal, name: str) -> tuple[Line, ...]:
    """The tax on what is left after credits, rounded once; no line when there is no tax."""
    if not percent:
        return ()
    cents = percent_of(net_cents, percent)
    return (Line("tax", f"{name} {percent.normalize():f} %", cents * PICO_PER_CENT, cents),)


def add_up(lines: Iterable[Line]) -> Totals:
    """Sum the lines by what they are."""
    pico, cents = dict.fromkeys(get_args(LineKind), 0), dict.fromkeys(get_args(LineKind), 0)
    for line in lines:
        pico[line.kind] += line.amount_pico
        cents[line.kind] += line.amount_cents
    usage_cents = cents["usage"] + cents["correction"]
    return Totals(pico["usage"] + pico["correction"], usage_cents, cents["credit"], cents["tax"])


def tax_share(total_cents: int, tax_cents: int, credited_before: int, amount: int) -> int:
    """How much of a credit note's amount is tax, so that notes over the whole invoice give back its whole tax."""

    def until(credited: int) -> int:
        return (2 * tax_cents * credited + total_cents) // (2 * total_cents)

    return until(credited_before + amount) - until(credited_before)


def _usage_line(each: UsageSum, period: Month) -> Line:
    late = each.charge_period != period
    name = each.meter.replace("_", " ")
    return Line(
        kind="correction" if late else "usage",
        description=f"{each.model}, {name}{f' (usage of {each.charge_period})' if late else ''}",
        amount_pico=each.amount_pico,
        amount_cents=to_cents(each.amount_pico),
        charge_period=each.charge_period,
        model=each.model,
        meter=each.meter,
        rate=each.rate,
        quantity=each.quantity,
    )
