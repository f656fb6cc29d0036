"""Who counts tokens how, as data: the names of the conventions, and the hosts where one is certain."""

from __future__ import annotations

from typing import Literal, get_args
from urllib.parse import urlsplit

Convention = Literal["openai", "anthropic", "gemini", "deepseek", "xai", "mistral", "bedrock"]
"""How a usage report counts. What each of them includes stands in gateway/metering/usage/, one file per convention."""
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

HOSTS: dict[str, Convention] = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "aiplatform.googleapis.com": "gemini",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.mistral.ai": "mistral",
}
"""Hosts with one owner. Everybody else's reports are recognised by their fields."""


def convention_at(base_url: str | None) -> Convention | None:
    """The convention of the API at this address; None where it is not certain."""
    host = (urlsplit(base_url).hostname or "") if base_url else ""
    if host.endswith("-aiplatform.googleapis.com"):
        return "gemini"
    # Regional hosts of one provider, such as eu.api.openai.com, count as its main one does.
    return next((name for known, name in HOSTS.items() if host == known or host.endswith(f".{known}")), None)
