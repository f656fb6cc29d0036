"""Values that several addresses of the admin API take."""

from __future__ import annotations

from gateway.billing.periods.month import Month
from gateway.errors import InvalidValue


def month_of(text: str) -> Month:
    """A month, `2026-11`. Raises InvalidValue."""
    try:
        return Month.parse(text)
    except ValueError as error:
        raise InvalidValue(f"{error}.", param="period") from None
