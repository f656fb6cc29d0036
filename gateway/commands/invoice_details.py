"""What invoice commands take from the configuration and the command line: periods, tenants, parties, amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ConfigError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.billing.invoices.issue import Parties
    from gateway.billing.periods.month import Month
    from gateway.config import Config
    from gateway.db.connect import Database


def month_given(text: str) -> Month:
    """The month of `--period`."""
    from gateway.billing.periods.month import Month

    try:
        return Month.parse(text)
    except ValueError as error:
        raise ConfigError(f"--period: {error}.") from None


def cents_given(text: str, option: str) -> int:
    """The amount of an option, whole cents and more than nothing."""
    from gateway.money import parse_cents

    try:
        cents = parse_cents(text, option)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if not cents:
        raise ConfigError(f"{option} must be more than nothing, got {text!r}.")
    return cents


def configuration(settings: Settings) -> Config:
    """The configuration, without looking up its secrets; an empty one when none is named."""
    from gateway.config import Config, read_config

    return read_config(settings.config) if settings.config else Config()


def parties_of(config: Config, tenant: str) -> Parties:
    """Issuer and tenant as they stand on an invoice."""
    from gateway.billing.invoices.issue import Parties
    from gateway.config import BillTo

    bill_to = next((entry.billing for entry in config.tenants if entry.name == tenant), BillTo())
    return Parties(config.billing, bill_to)


def check_tenant(config: Config, database: Database, tenant: str) -> None:
    """Refuse a tenant that is neither declared nor has ever used anything."""
    from gateway.billing.periods.queries import tenants_with_usage
    from gateway.db.transaction import snapshot

    declared = {"default", *(entry.name for entry in config.tenants)}
    if tenant in declared:
        return
    with snapshot(database) as connection:
        known = declared | set(tenants_with_usage(connection))
    if tenant not in known:
        raise ConfigError(
            f"tenant {tenant!r} is not declared in the configuration and has no usage. Known: {', '.join(sorted(known))}."
        )
