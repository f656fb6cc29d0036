"""Money is an integer count of pico-USD (1e-12 USD); floats never touch it and rounding happens in one function."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

PICO_PER_USD = 10**12
UNITS_PER_PRICE = 1_000_000
"""Prices are quoted per million units: tokens, or microseconds for GPU time (so per second)."""

MAX_USD = Decimal(9_000_000)
"""Largest amount one row may hold: pico-USD in a signed 64-bit integer end at 9.22 million USD."""

PICO_PER_CENT = 10**10
"""Invoices are in cents; everything before them is exact."""

MAX_PRICE_USD = Decimal(100_000)
"""Sanity limit for a price per million units. The dearest token sold today costs about 600 USD per million."""

PLAUSIBLE_TOKENS = (Decimal("0.0005"), Decimal(2500))
"""USD per million tokens that somebody asks today, with room on both sides; a price typed in the wrong unit is outside."""

PLAUSIBLE_GPU_SECOND = (Decimal("0.000001"), Decimal(1))
"""USD per second of an engine."""


def parse_usd(value: object, what: str) -> int:
    """Turn a decimal USD amount (number or string) into pico-USD.

    Raises ValueError when it is not a finite decimal, is negative, exceeds MAX_USD, or has more than 12 decimals.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError(f"{what} must be a decimal number of USD, got {value!r}")
    try:
        # repr() of a float is its shortest decimal form, which is what the person typed.
        usd = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{what} must be a decimal number of USD, got {value!r}") from None
    if not usd.is_finite():
        raise ValueError(f"{what} must be finite, got {value!r}")
    if usd < 0:
        raise ValueError(f"{what} must not be negative, got {value!r}")
    if usd > MAX_USD:
        raise ValueError(f"{what} must be at most {MAX_USD} USD, got {value!r}")
    pico = usd * PICO_PER_USD
    if pico != pico.to_integral_value():
        raise ValueError(f"{what} has more than 12 decimals and cannot be kept exactly, got {value!r}")
    return int(pico)


def parse_price(value: object, what: str) -> int:
    """Turn a price in USD per million units into its rate, pico-USD per million units (exact).

    Raises ValueError as `parse_usd` does, and when the price is beyond MAX_PRICE_USD (a price typed in the wrong unit).
    """
    rate = parse_usd(value, what)
    if rate > MAX_PRICE_USD * PICO_PER_USD:
        raise ValueError(f"{what} is {value!r} USD per million, which is not plausible: prices are USD per 1M tokens")
    return rate


def implausible(meter: str, rate: int) -> str | None:
    """Why a rate looks like a price in the wrong unit, None when it does not. Free is plausible."""
    low, high = PLAUSIBLE_GPU_SECOND if meter == "gpu_seconds" else PLAUSIBLE_TOKENS
    usd = Decimal(rate) / PICO_PER_USD
    if rate == 0 or low <= usd <= high:
        return None
    unit = "second" if meter == "gpu_seconds" else "million tokens"
    hint = "a price per token is a million times smaller" if usd < low else "it may be of another unit or currency"
    return f"{format_usd(rate)} USD per {unit} is not plausible for {meter}, only {low} to {high} are: {hint}"


def amount_for(quantity: int, rate: int) -> int:
    """Pico-USD for `quantity` units at `rate` pico-USD per million units, rounded half up. The one rounding point."""
    return (quantity * rate + UNITS_PER_PRICE // 2) // UNITS_PER_PRICE


def to_cents(pico: int) -> int:
    """Whole cents, rounded half away from zero. Called once per invoice line, nothing is rounded before or after it."""
    return divide_rounding(pico, PICO_PER_CENT)


def percent_of(cents: int, percent: Decimal) -> int:
    """A percentage of an amount in whole cents, rounded half away from zero."""
    numerator, denominator = percent.as_integer_ratio()
    return divide_rounding(cents * numerator, 100 * denominator)


def divide_rounding(numerator: int, denominator: int) -> int:
    """The nearest whole number, a half away from zero; the denominator is positive."""
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -size if numerator < 0 else size


def parse_cents(value: object, what: str) -> int:
    """Turn a decimal USD amount into whole cents. Raises ValueError as `parse_usd` does, and for parts of a cent."""
    cents, rest = divmod(parse_usd(value, what), PICO_PER_CENT)
    if rest:
        raise ValueError(f"{what} must be whole cents, got {value!r}")
    return cents


def format_cents(cents: int) -> str:
    """An amount as it stands on an invoice: two decimals, without thousands separators: -1250 -> '-12.50'."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{rest:02d}"


def with_markup(rate: int, markup_percent: Decimal) -> int:
    """The rate with a percentage added, rounded half up to a whole pico-USD per million units."""
    exact = Decimal(rate) * (100 + markup_percent) / 100
    return int((exact * 2 + 1) // 2)


def format_usd(pico: int) -> str:
    """Exact decimal text of an amount, without exponent and trailing zeros: 12_500_000 -> '0.0000125'."""
    sign = "-" if pico < 0 else ""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    digits = f"{fraction:012d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
