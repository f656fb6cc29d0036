"""The part of penstock.yaml about what is sent out: usage events, alerts, and the mail server."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config_section import Section

LONGEST_ADDRESS = 254
MOST_ADDRESSES = 50


def check_address(text: str) -> str:
    """A mail address as it is. Raises ValueError for what could be more than one address, or a header of its own."""
    local, _, domain = text.rpartition("@")
    if (
        not local
        or not domain
        or len(text) > LONGEST_ADDRESS
        or any(not "!" <= c <= "~" or c in '<>,;:"' for c in text)
    ):
        raise ValueError("write one mail address in ASCII without a name, for example finance@example.com")
    return text


def check_percents(percents: tuple[int, ...]) -> tuple[int, ...]:
    """Percentages, each once. Raises ValueError for one that stands there twice."""
    if len(set(percents)) != len(percents):
        raise ValueError("the same percentage stands there twice")
    return percents


Address = Annotated[str, AfterValidator(check_address)]
Addresses = Annotated[tuple[Address, ...], Field(max_length=MOST_ADDRESSES)]
Percents = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=20), AfterValidator(check_percents)
]


class Webhook(Section):
    """An address of somebody else's that is posted to."""

    url: str = Field(min_length=1, description="Where to post, http or https; may be `env:NAME`.")
    secret: str = Field(
        min_length=1, description="Signs what is posted, normally `env:NAME`: `whsec_` and 24 to 64 bytes as base64."
    )


class Events(Section):
    """Metered requests for other systems."""

    webhook: Webhook = Field(description="Who gets them.")


class Alerts(Section):
    """Alerts for the operator."""

    webhook: Webhook | None = Field(None, description="Gets each alert.")
    email: Addresses = Field((), description="Mail addresses that get each alert.")


class TenantAlerts(Alerts):
    """Alerts about the budgets of a tenant."""

    at_percent: Percents = Field((50, 80, 100), description="Shares of a budget that are told about, percent.")


class Mail(Section):
    """How mail is sent."""

    host: str = Field(min_length=1, max_length=255, description="The mail server.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    tls: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is encrypted.")
    username: str | None = Field(None, min_length=1, description="Who logs in; nobody when absent.")
    password: str | None = Field(None, min_length=1, description="The password, normally `env:NAME`.")
    sender: Address = Field(alias="from", description="Whom mails are from.")
