"""The section `policies.NAME.shadow` of penstock.yaml: which requests another tier answers as well, and who compares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gateway.callers import Period
from gateway.config_section import Section, TenantName, Usd
from gateway.types import Tier
from gateway.verdicts import Compare

Kind = Literal["auto", "tier", "model"]
"""What a request asks for: a choice, a tier, or one model."""

PAYER = "penstock-shadow"
"""The tenant that pays for shadow requests unless another one is named. Nobody else uses it, and it need not be declared."""


class ShadowSampling(Section):
    """Some requests are also sent to another tier, after their answer, at the operator's cost."""

    share: float = Field(ge=0, le=1, description="Share of the requests that another tier answers as well; 0 for none.")
    tier: Tier | Literal["other"] = Field(
        "other", description="Which tier: `other` is the best one, or the cheapest where the best one has answered."
    )
    budget_usd: Usd = Field(gt=0, description="Most that shadow requests and their judge may cost per `period`.")
    period: Period = Field("day", description="day, week, month or lifetime.")
    compare: Compare = Field(
        "exact", description="Who compares: the final answers (`exact`), a model (`judge`), or a person (`human`)."
    )
    judge: str | None = Field(None, min_length=1, description="For `compare: judge`: the model that judges.")
    only: tuple[Kind, ...] = Field(
        ("auto",), min_length=1, description="Requests that ask for `auto`, a `tier`, a `model`."
    )
    bill_to: TenantName = Field(
        PAYER, description="The tenant that is charged for shadow requests; a declared one's limits and budgets count."
    )
    keep_days: int = Field(7, ge=1, le=365, description="For `compare: human`: days until texts that nobody judged go.")

    @model_validator(mode="after")
    def _judge_where_needed(self) -> ShadowSampling:
        if (self.compare == "judge") != (self.judge is not None):
            raise ValueError("`judge` names the model for `compare: judge`; give both or neither")
        return self
