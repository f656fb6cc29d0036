"""Who may use the admin API."""

from __future__ import annotations

import secrets

from fastapi import Request

from gateway.errors import InvalidKey, MissingKey
from gateway.services import Services


def services_of(request: Request) -> Services:
    """The process's services."""
    services: Services = request.app.state.services
    return services


def require_admin(request: Request) -> None:
    """Let only the admin key pass. Raises MissingKey or InvalidKey."""
    expected = services_of(request).settings.admin_key
    if expected is None:
        raise InvalidKey("The admin API is off: set PENSTOCK_ADMIN_KEY and restart.")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise MissingKey("The admin API needs 'Authorization: Bearer $PENSTOCK_ADMIN_KEY'.")
    if not secrets.compare_digest(given.strip().encode(), expected.encode()):
        raise InvalidKey("This is not the admin key.")
