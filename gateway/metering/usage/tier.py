"""The service tier that a reply names, in the words of the price book (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 64
"""Characters of a tier's name; what is longer is none."""

WORDS = {
    "standard": "default",  # Anthropic, Gemini
    "ON_DEMAND": "default",  # Vertex AI: `trafficType`
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
"""Others keep their own name. A tier without prices costs what the default one does."""


def served_tier(said: object, raw: Mapping[str, Any] | None) -> str | None:
    """The tier a reply was served in: as the reply says, or as its usage does; None when neither does."""
    if not said and raw:
        said = raw.get("service_tier") or raw.get("serviceTier") or raw.get("trafficType")
    if isinstance(said, dict):  # Bedrock: {"type": "flex"}
        said = said.get("type")
    if not isinstance(said, str) or not said or len(said) > LONGEST:
        return None
    return WORDS.get(said, said)
