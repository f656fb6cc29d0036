"""The part of penstock.yaml about who is billed and what they may take: tenants, projects, users, tags, keys."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gateway.callers import Period
from gateway.config_outlets import TenantAlerts
from gateway.config_policies import Routing
from gateway.config_section import Name, Section, TenantName, Usd
from gateway.types import Tier

LARGEST = 2**62
"""Counters are signed 64-bit integers."""


class Budget(Section):
    """A money limit per period, checked before a call and settled after it."""

    limit_usd: Usd = Field(description="Most that may be spent in one period, USD.")
    period: Period = Field("month", description="Calendar period in UTC.")
    hard: bool = Field(True, description="Whether requests are refused when it is used up; else it is counted only.")


def _listed(value: Any) -> Any:
    """One budget may stand without a list."""
    return () if value is None else (value,) if isinstance(value, dict) else value


Label = Annotated[str, Field(min_length=1, max_length=200)]
"""What requests call users and tags."""

Budgets = Annotated[tuple[Budget, ...], BeforeValidator(_listed)]


class Limits(Section):
    """Rate limits of one owner."""

    requests_per_minute: int | None = Field(None, gt=0, lt=LARGEST, description="Requests started per minute.")
    tokens_per_minute: int | None = Field(None, gt=0, lt=LARGEST, description="Input and output tokens per minute.")
    requests_per_day: int | None = Field(None, gt=0, lt=LARGEST, description="Requests started per day (UTC).")
    tokens_per_day: int | None = Field(None, gt=0, lt=LARGEST, description="Input and output tokens per day (UTC).")
    parallel: int | None = Field(None, gt=0, lt=LARGEST, description="Requests in flight at once.")


class Owner(Section):
    """What one owner may take."""

    budget: Budgets = Field((), description="Money limits: one, or a list with one per period.")
    limits: Limits | None = Field(None, description="Rate limits.")


class Project(Owner):
    """A part of a tenant, with keys of its own."""

    name: Name = Field(description="Unique within the tenant.")


class Users(Section):
    """End users, whom requests name."""

    each: Owner | None = Field(None, description="What every user may take, those nobody has heard of too.")
    named: dict[Label, Owner] = Field({}, description="By user; what is not said here is as for each.")


class Sessions(Section):
    """What one agent run (`session_id`) may take; what is absent is not limited."""

    limit_usd: Usd | None = Field(None, description="Most that one run may spend, USD.")
    tokens: int | None = Field(None, gt=0, lt=LARGEST, description="Input and output tokens of one run.")
    steps: int | None = Field(None, gt=0, lt=LARGEST, description="Requests of one run.")
    seconds: int | None = Field(None, gt=0, lt=LARGEST, description="Seconds from its first request on.")
    repeats: int | None = Field(None, gt=0, lt=LARGEST, description="How often the same request may be made.")
    idle_seconds: int = Field(
        86_400, gt=0, le=366 * 86_400, description="A run is forgotten so long after its last request."
    )


class Estimate(Section):
    """How much a request holds before its cost is known."""

    percentile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of a model's recent replies that the hold covers; the worst case when absent.",
    )
    overdraft_usd: Usd = Field(
        Decimal(0), description="How far hard budgets of the tenant and below may be overdrawn, USD."
    )
    without_store_usd: Usd = Field(
        Decimal(0),
        description="What each gateway process may serve while counters cannot be asked, USD; 0 refuses.",
    )


class PricePlan(Section):
    """What a tenant pays relative to what the provider asks."""

    markup_percent: Usd = Field(Decimal(0), ge=0, le=1000, description="Added to the provider's price.")


class BillTo(Section):
    """How a tenant is invoiced."""

    name: str | None = Field(
        None, min_length=1, max_length=200, description="Name on invoices; the tenant's when absent."
    )
    address: str | None = Field(None, max_length=1000, description="Address on invoices; line breaks are kept.")
    tax_id: str | None = Field(None, max_length=100, description="The tenant's tax number.")
    po_number: str | None = Field(None, max_length=100, description="Purchase order that invoices name.")
    terms_days: int = Field(30, ge=0, le=365, description="Days from the invoice date until payment is due.")
    tax_percent: Usd = Field(Decimal(0), ge=0, le=100, decimal_places=4, description="Tax added to invoices.")
    tax_name: str = Field("Tax", min_length=1, max_length=50, description="What the tax is called.")


class Tenant(Owner):
    """Who is billed."""

    name: TenantName = Field(description="Unique name, used in bills and reports.")
    price_plan: PricePlan = Field(PricePlan(), description="Markup on provider prices.")
    policy: str = Field("default", description="Policy for `auto` requests.")
    routing: Routing = Field(Routing(), description="What is added to the policy for all of its requests.")
    billing: BillTo = Field(BillTo(), description="How the tenant is invoiced.")
    projects: tuple[Project, ...] = Field((), description="Parts of the tenant, with keys of their own.")
    users: Users = Field(Users(), description="What end users may take, whom requests name.")
    tags: dict[Label, Owner] = Field({}, description="What requests with a tag may take, by tag.")
    models: dict[str, Owner] = Field({}, description="What may be taken from a model, by its name.")
    sessions: Sessions | None = Field(None, description="What one agent run may take.")
    estimate: Estimate = Field(Estimate(), description="How much requests hold before their cost is known.")
    alerts: TenantAlerts | None = Field(None, description="Who hears of budgets that are nearly used up.")


class Key(Owner):
    """A key declared in the file. More are made by the command line."""

    key: str = Field(min_length=8, description="The secret, normally `env:NAME`.")
    name: Name = Field(description="Unique within the tenant; shown in reports instead of the secret.")
    tenant: str = Field("default", description="Who is billed.")
    project: str | None = Field(None, description="The project of the tenant it belongs to.")
    models: tuple[str, ...] | None = Field(
        None, description="Model names (and `auto`) it may ask for; all when absent."
    )
    tiers: tuple[Tier, ...] | None = Field(None, description="Tiers it may be served from; all when absent.")
    routing: Routing = Field(Routing(), description="What is added to the policy for its requests.")
