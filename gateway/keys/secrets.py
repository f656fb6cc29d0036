"""Making secrets. A secret is random, shown once, and stored only as its SHA-256."""

from __future__ import annotations

import secrets

PREFIX = "sk-penstock-"
MEMBER_PREFIX = "sk-penstock-member-"


def make_secret(prefix: str = PREFIX) -> str:
    """A new secret with 256 bits of randomness."""
    return prefix + secrets.token_urlsafe(32)


def make_id(prefix: str) -> str:
    """A new public id, which says nothing about any secret."""
    return prefix + secrets.token_hex(8)
