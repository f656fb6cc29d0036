"""Where events, alerts and mail go, with secrets resolved; what can never be sent is refused before anything starts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from gateway import config_outlets as shape
from gateway.errors import ConfigError

KEY_BYTES = range(24, 65)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook. Its URL may hold a secret as well, so messages name what it is for and never show it."""

    url: str = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AlertTargets:
    """Who gets alerts, and of budgets: at which percentages."""

    webhook: Endpoint | None
    email: tuple[str, ...]
    at_percent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MailServer:
    """How mail is sent."""

    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    username: str | None
    password: str | None = field(repr=False)
    sender: str


@dataclass(frozen=True, slots=True)
class Outlets:
    """Everything that leaves the installation on its own: metered requests, alerts by tenant, alerts of the operator."""

    events: Endpoint | None = None
    alerts: AlertTargets | None = None
    tenants: Mapping[str, AlertTargets] = field(default_factory=dict)
    mail: MailServer | None = None


def build_outlets(
    events: shape.Events | None,
    alerts: shape.Alerts | None,
    tenants: Iterable[tuple[str, shape.TenantAlerts | None]],
    mail: shape.Mail | None,
    where: str,
    resolve: Callable[[str, str], str],
) -> Outlets:
    """Resolve addresses and secrets; `resolve` takes the text of the file and a label. Raises ConfigError."""
    outlets = Outlets(
        events=_endpoint(events.webhook, f"{where}: events.webhook", resolve) if events else None,
        alerts=_targets(alerts, f"{where}: alerts", resolve) if alerts else None,
        tenants={
            name: _targets(entry, f"{where}: tenant {name!r}: alerts", resolve) for name, entry in tenants if entry
        },
        mail=_mail(mail, f"{where}: smtp", resolve) if mail else None,
    )
    named = [targets for targets in (outlets.alerts, *outlets.tenants.values()) if targets and targets.email]
    if named and outlets.mail is None:
        raise ConfigError(f"{where}: alerts go to {named[0].email[0]!r} and there is no `smtp` to send them with.")
    return outlets


def _targets(entry: shape.Alerts, label: str, resolve: Callable[[str, str], str]) -> AlertTargets:
    if entry.webhook is None and not entry.email:
        raise ConfigError(f"{label}: give `webhook` or `email`; nobody would hear of anything.")
    percents = tuple(sorted(entry.at_percent)) if isinstance(entry, shape.TenantAlerts) else ()
    webhook = _endpoint(entry.webhook, f"{label}.webhook", resolve) if entry.webhook else None
    return AlertTargets(webhook, entry.email, percents)


def _endpoint(entry: shape.Webhook, label: str, resolve: Callable[[str, str], str]) -> Endpoint:
    url = resolve(entry.url, f"{label}.url")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in url:
        raise ConfigError(f"{label}.url must be an address that starts with http:// or https://.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{label}.url must not hold a name or password: what is posted is signed with `secret`.")
    return Endpoint(url, _key(resolve(entry.secret, f"{label}.secret"), label))


def _key(secret: str, label: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_BYTES:
        raise ConfigError(
            f"{label}.secret must be `whsec_` followed by 24 to 64 random bytes as base64. "
            'Make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return key


def _mail(entry: shape.Mail, label: str, resolve: Callable[[str, str], str]) -> MailServer:
    if (entry.username is None) != (entry.password is None):
        raise ConfigError(f"{label}: give both `username` and `password`, or neither.")
    if entry.password is not None and entry.tls == "none":
        raise ConfigError(f"{label}: a password would be sent in the clear; use `tls: starttls` or `tls: tls`.")
    password = resolve(entry.password, f"{label}.password") if entry.password else None
    return MailServer(entry.host, entry.port, entry.tls, entry.username, password, entry.sender)
