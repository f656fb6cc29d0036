"""The two sides of a reconciliation as lines of one kind: what a provider's bill says, and what our book says (pure).

Amounts are pico-USD, rates pico-USD per million units; nothing is a float. What cannot be read exactly is an UnreadableBill,
which names the place, the value and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from gateway.billing.periods.month import Month
from gateway.money import MAX_USD, PICO_PER_USD, UNITS_PER_PRICE, parse_price

MOST_UNITS = 10**15
"""More than any provider serves of one model in a month; a larger quantity is a broken column."""

GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")

OTHER = "other"
"""The meter of what Penstock does not count: searches, storage, taxes, seats."""


class UnreadableBill(ValueError):
    """A bill that cannot be read exactly. The message names the place, the value, and what to do, without a last full stop."""

    def __init__(self, message: str) -> None:
        super().__init__(message.removesuffix("."))


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a provider's bill. None where the bill does not say: then nothing is compared by it.

    `day` is in the bill's time zone. `tier` is the service tier, with `+long` for a long context. `rate` is the unit price
    that the bill states, never one that was divided out. `account` is the provider's key, project or workspace.
    """

    position: int
    day: date
    model: str | None
    meter: str
    amount: int
    quantity: int | None = None
    rate: int | None = None
    tier: str | None = None
    account: str | None = None
    request_id: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class BookLine:
    """What we noted for one day (or one request), model, meter, tier and rate. `day` is in the bill's time zone.

    `billed`: the provider counts it to the month of the bill. `booked`: it is of that month in UTC, as all our books are.
    """

    day: date
    model: str
    meter: str
    tier: str
    quantity: int
    rate: int
    amount: int
    request_id: str | None = None
    billed: bool = True
    booked: bool = True
    estimated: bool = False
    noted_tier: str = ""
    """The tier as we noted it, where `tier` is only as fine as the bill's."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bill is to be read. `ours`: the provider's keys or projects that Penstock uses; empty when all are."""

    zone: str = "UTC"
    ours: tuple[str, ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    """(name on the bill, the upstream's name in our configuration), where they differ in more than a date."""
    booked_as: str | None = None
    """The provider's name in our usage, where it is not that of the bill."""
    only: tuple[str, ...] = ()
    """Our upstream names that this bill is about; empty when it is about all of the provider's."""


def exact(value: object, where: str, what: str) -> Decimal:
    """A finite decimal number. JSON numbers must have been read as Decimal or int."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise UnreadableBill(f"{where}: {what} is {value!r}, which is not a decimal number")
    try:
        number = Decimal(_without_groups(value.strip(), where, what) if isinstance(value, str) else value)
    except InvalidOperation:
        raise UnreadableBill(f"{where}: {what} is {value!r}, which is not a decimal number") from None
    if not number.is_finite():
        raise UnreadableBill(f"{where}: {what} is {value!r}, which is not finite")
    return number


def _without_groups(text: str, where: str, what: str) -> str:
    """A number without the commas between its thousands. A decimal comma would be read a hundred times too large."""
    if "," in text and not GROUPED.fullmatch(text):
        raise UnreadableBill(
            f"{where}: {what} is {text!r}; a comma may only stand between thousands, as in 1,234.50. Write decimals "
            "with a point"
        )
    return text.replace(",", "")


def amount_of(value: object, where: str, *, per_usd: int = 1) -> int:
    """An amount in pico-USD; `per_usd` is 100 for cents. Negative ones are credits. Beyond twelve decimals it is rounded."""
    usd = exact(value, where, "the amount") / per_usd
    if abs(usd) > MAX_USD:
        raise UnreadableBill(f"{where}: the amount is {value!r}, and one amount may be at most {MAX_USD} USD")
    return int((usd * PICO_PER_USD).to_integral_value(ROUND_HALF_UP))


def quantity_of(value: object, where: str, *, times: int = 1) -> int:
    """A whole number of units, not negative; `times` is 1000 for a bill in thousands."""
    number = exact(value, where, "the quantity") * times
    if number < 0:
        raise UnreadableBill(
            f"{where}: the quantity is {value!r}; a credit has a negative amount, not a negative quantity"
        )
    if number > MOST_UNITS:
        raise UnreadableBill(f"{where}: the quantity is {value!r}, which is more than any provider serves in a month")
    if number != number.to_integral_value():
        raise UnreadableBill(f"{where}: the quantity is {value!r}, and tokens are whole: is it of another unit?")
    return int(number)


def rate_of(value: object, where: str, *, per: int = UNITS_PER_PRICE) -> int:
    """A unit price as a rate; `per` is how many units it is the price of."""
    usd = exact(value, where, "the unit price") * UNITS_PER_PRICE / per
    try:
        return parse_price(usd.quantize(Decimal(1).scaleb(-12)) if usd else Decimal(0), "the unit price")
    except (ValueError, InvalidOperation) as error:
        raise UnreadableBill(f"{where}: {error}") from None


def check_currency(value: object, where: str) -> None:
    """Only USD is kept; nothing is converted silently."""
    if not isinstance(value, str) or value.strip().upper() != "USD":
        raise UnreadableBill(
            f"{where}: the currency is {value!r}, and Penstock keeps its books in USD. Ask the provider for a bill in USD, or "
            "convert it and keep the rate with it."
        )


def check_month(day: date, month: Month, where: str) -> None:
    """A line of another month is a wrong file or a wrong period, never to be left out silently."""
    if (day.year, day.month) != (month.year, month.number):
        raise UnreadableBill(
            f"{where}: the line is of {day.isoformat()}, and the bill is of {month}. Give the file of that month, or the "
            "period of this file; a bill of another time zone is read with --zone."
        )


def check_total(lines: Iterable[BillLine]) -> int:
    """The sum of a bill. Raises UnreadableBill beyond what one amount may be."""
    total = sum(line.amount for line in lines)
    if abs(total) > MAX_USD * PICO_PER_USD:
        raise UnreadableBill(f"the bill is beyond {MAX_USD} USD in total; import its accounts one by one")
    return total


def zone_of(name: str) -> ZoneInfo:
    """A time zone whose days begin on a full hour of UTC, as our sums are by hour."""
    try:
        zone = ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise UnreadableBill(f"{name!r} is not a time zone; write for example UTC or America/Los_Angeles") from None
    for month in (1, 7):
        offset = datetime(2026, month, 1, tzinfo=zone).utcoffset() or timedelta()
        if offset % timedelta(hours=1):
            raise UnreadableBill(f"the days of {name!r} do not begin on a full hour of UTC; ask for the bill in UTC")
    return zone
