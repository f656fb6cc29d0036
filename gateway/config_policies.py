"""The section `policies` of penstock.yaml, and what tenants and keys may add to it: how `auto` chooses, and who may answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config_section import Number, Section, Usd
from gateway.config_shadow import ShadowSampling

Objective = Literal["cost", "quality", "latency"]
Region = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Where a deployment runs, by a name of the operator's choice: small letters, digits, - and _."""
Share = Annotated[Number, Field(ge=0, le=1)]


SUREST = 0.9999
"""The test of promises has no answer for more, and labels by the thousand cannot show it."""


def _promisable(confidence: float) -> float:
    if not 0.5 < confidence <= SUREST:  # also refuses NaN
        raise ValueError(f"nothing can be promised with it; give more than 0.5 and at most {SUREST}, such as 0.95")
    return confidence


Confidence = Annotated[float, AfterValidator(_promisable)]


class Sla(Section):
    """How fast answers are to be; how fast deployments are is measured."""

    first_token_seconds: Number | None = Field(None, gt=0, le=600, description="Until the first token of a stream.")
    total_seconds: Number | None = Field(None, gt=0, le=3600, description="Until the whole answer.")
    otherwise: Literal["behind", "reject"] = Field(
        "behind",
        description="What becomes of deployments that are expected to be slower: asked last, or not while others are left.",
    )


class Placement(Section):
    """Where requests may be processed, which holds whatever is asked for."""

    local_only: bool = Field(False, description="Whether only models of the operator's own may answer.")
    regions: tuple[Region, ...] | None = Field(
        None, min_length=1, description="Only models that run in these regions and nowhere else may answer."
    )


class Routing(Placement):
    """What a tenant or a key adds to its policy. Requests can ask for more than this, never for less."""

    min_quality: Share | None = Field(None, description="Least `min_quality` of `auto` requests.")
    max_cost_usd: Usd | None = Field(
        None, ge=0, decimal_places=12, description="Most that one request may cost at worst, USD."
    )
    max_premium_share: Share | None = Field(
        None, description="Largest share of `auto` requests of each key that premium and deep models should answer."
    )


NO_ROUTING = Routing()


class Policy(Placement):
    """How `auto` chooses."""

    min_quality: Share = Field(0.95, description="Share of the best tier's quality that must be kept; see `floor`.")
    confidence: Confidence = Field(
        0.95, description="How sure it is to be that `min_quality` is kept on average: above 0.5, at most 0.9999."
    )
    floor: Literal["average", "each"] = Field(
        "average", description="Whether `min_quality` is kept on average over traffic, or by each prompt as predicted."
    )
    objective: Objective = Field(
        "cost", description="Cheapest that keeps the quality, best there is, or fastest that keeps the quality."
    )
    unfamiliar: Literal["best", "choose"] = Field(
        "best",
        description="Prompts unlike the training data go to the best model; with `choose` they are chosen for as all others.",
    )
    max_cost_usd: Usd | None = Field(
        None, ge=0, decimal_places=12, description="Most that one request may cost at worst, USD."
    )
    max_premium_share: Share | None = Field(
        None, description="Largest share of `auto` requests of each key that premium and deep models should answer."
    )
    max_unfamiliar_share: Share = Field(
        0.5,
        description=(
            "Largest share of each key's `auto` requests that `unfamiliar: best` sends to the best model, from its 21st on; "
            "1 is no bound."
        ),
    )
    premium_window_seconds: Number = Field(
        3600.0,
        ge=1,
        le=31 * 86_400,
        description="Over which time `max_premium_share` and `max_unfamiliar_share` are counted; older requests fade.",
    )
    sla: Sla | None = Field(None, description="How fast answers are to be.")
    affinity: bool = Field(True, description="Whether a prompt's price counts what a provider has cached of it.")
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
    save_below: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="When less than this share is left of a hard budget, `auto` gives less for quality, down to nothing.",
    )
    remember: Literal["nothing", "scores", "features", "prompts"] = Field(
        "scores",
        description=(
            "What is kept of a decision: predictions and choice (`scores`); with `features` also what scoring it again needs, "
            "from which most of the prompt's words can be read back; with `prompts` also the text."
        ),
    )
    keep_comments: bool = Field(
        False, description="Whether comments of feedback are kept; they may quote what people wrote."
    )
    shadow: ShadowSampling | None = Field(None, description="Sampling of another tier's answers; off when absent.")
