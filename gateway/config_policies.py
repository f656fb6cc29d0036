"""The section `policies` of penstock.yaml: how `auto` chooses, one section per named policy."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from gateway.config_section import Section, Usd
from gateway.config_shadow import ShadowSampling


class Policy(Section):
    """How `auto` chooses."""

    min_quality: float = Field(0.95, ge=0, le=1, description="Share of the best tier's quality that must be kept.")
    objective: Literal["cost", "quality"] = Field(
        "cost", description="Cheapest that keeps the quality, or best there is."
    )
    fallbacks: bool = Field(True, description="Whether other candidates are asked when one fails.")
    unpriced: Literal["refuse", "hold"] = Field(
        "refuse", description="What becomes of requests to a model without a price: refused, or held at a maximum."
    )
    unpriced_hold_usd: Usd = Field(
        Decimal(1), gt=0, le=1000, decimal_places=12, description="For `hold`: held per call until its price is known."
    )
    when_over_budget: Literal["refuse", "cheaper"] = Field(
        "refuse", description="What becomes of `auto` requests that a budget does not allow."
    )
    remember: Literal["nothing", "scores", "features", "prompts"] = Field(
        "features",
        description="What is kept of a decision for replay and training: the text read only with `prompts`.",
    )
    keep_comments: bool = Field(
        False, description="Whether comments of feedback are kept; they may quote what people wrote."
    )
    shadow: ShadowSampling | None = Field(None, description="Sampling of another tier's answers; off when absent.")
