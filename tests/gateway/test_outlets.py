"""Webhooks, alerts and mail in penstock.yaml: what can never be sent is refused at the start, and no secret is shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.catalog import build_catalog
from gateway.config import check_config
from gateway.errors import ConfigError

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
HOOK = {"url": "https://hooks.example.com/a", "secret": "env:HOOK_SECRET"}
SMTP = {"host": "mail.example.com", "from": "penstock@example.com"}
ENVIRONMENT = {"HOOK_SECRET": SECRET, "HOOK_URL": "https://hooks.example.com/token", "SMTP_PASSWORD": "letmein-letmein"}


def build(**sections: Any) -> Any:
    return build_catalog(check_config(sections, "p.yaml"), "p.yaml", secret=ENVIRONMENT.get)


def test_addresses_and_secrets_come_from_the_environment_and_are_not_shown() -> None:
    built = build(
        events={"webhook": {**HOOK, "url": "env:HOOK_URL"}},
        tenants=[{"name": "acme", "alerts": {"webhook": HOOK, "email": ["cfo@example.com"], "at_percent": [100, 50]}}],
        smtp={**SMTP, "username": "penstock", "password": "env:SMTP_PASSWORD"},
    )
    assert (built.outlets.events.url, built.outlets.events.key) == ("https://hooks.example.com/token", KEY)
    assert built.outlets.tenants["acme"].at_percent == (50, 100)
    assert (built.outlets.mail.port, built.outlets.mail.tls) == (587, "starttls")
    shown = repr(built)
    assert all(secret not in shown for secret in (SECRET, repr(KEY), "token", "letmein"))


def test_without_any_of_it_nothing_is_sent() -> None:
    outlets = build().outlets
    assert (outlets.events, outlets.alerts, dict(outlets.tenants), outlets.mail) == (None, None, {}, None)


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"events": {"webhook": {**HOOK, "url": "ftp://x/y"}}}, "events.webhook.url must be an address"),
        ({"events": {"webhook": {**HOOK, "url": "https://"}}}, "events.webhook.url must be an address"),
        ({"events": {"webhook": {**HOOK, "url": "https://a b/"}}}, "events.webhook.url must be an address"),
        ({"events": {"webhook": {**HOOK, "url": "https://x:99999/"}}}, "events.webhook.url must be an address"),
        ({"events": {"webhook": {**HOOK, "url": "https://me:pass@x/"}}}, "must not hold a name or password"),
        ({"events": {"webhook": {**HOOK, "secret": "hunter2hunter2"}}}, "must be `whsec_` followed by 24 to 64"),
        ({"events": {"webhook": {**HOOK, "secret": "whsec_c2hvcnQ="}}}, "must be `whsec_` followed by 24 to 64"),
        ({"events": {"webhook": {**HOOK, "secret": "whsec_!!!"}}}, "must be `whsec_` followed by 24 to 64"),
        ({"events": {"webhook": {**HOOK, "secret": "env:NOT_SET"}}}, "'NOT_SET', which is not set"),
        ({"events": {"webhok": HOOK}}, "did you mean 'webhook'"),
        ({"tenants": [{"name": "a", "alerts": {}}]}, "give `webhook` or `email`"),
        ({"tenants": [{"name": "a", "alerts": {"email": ["x@y.z"]}}]}, "'x@y.z' and there is no `smtp`"),
        ({"tenants": [{"name": "a", "alerts": {"webhook": HOOK, "at_percent": [50, 50]}}]}, "stands there twice"),
        ({"tenants": [{"name": "a", "alerts": {"webhook": HOOK, "at_percent": [0]}}]}, "greater than or equal to 1"),
        ({"tenants": [{"name": "a", "alerts": {"webhook": HOOK, "at_percent": []}}]}, "must have at least 1"),
        ({"alerts": {"email": ["Boss <boss@x.y>"]}, "smtp": SMTP}, "one mail address"),
        ({"alerts": {"email": ["a@x.y\r\nBcc: b@x.y"]}, "smtp": SMTP}, "one mail address"),
        ({"alerts": {"email": ["nobody"]}, "smtp": SMTP}, "one mail address"),
        ({"smtp": {**SMTP, "username": "u"}}, "give both `username` and `password`"),
        ({"smtp": {**SMTP, "username": "u", "password": "p", "tls": "none"}}, "in the clear"),
        ({"smtp": {**SMTP, "form": "x"}}, "did you mean 'from'"),
    ],
)
def test_what_can_never_be_sent_is_refused_with_what_to_do(sections: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**sections)
    assert complaint in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "me:pass" not in str(error.value)


def test_a_secret_of_the_wrong_type_is_not_shown_either() -> None:
    with pytest.raises(ConfigError) as error:
        build(events={"webhook": {"url": ["https://x/token"], "secret": {"oops": "hunter2"}}})
    assert "hunter2" not in str(error.value)
    assert "token" not in str(error.value)
