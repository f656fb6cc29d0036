"""/admin/api/models: every deployment and its price of now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request

from gateway.api.admin.access import may, services_of
from gateway.keys.roles import Actor
from gateway.money import PICO_PER_USD

routes = APIRouter()


@routes.get("/models")
async def models(request: Request, actor: Annotated[Actor, may("models.read")]) -> list[dict[str, Any]]:
    """Every deployment with its tier, place and provider price of now in USD per million units; `health` is what the process
    that answers has seen of it.
    """
    services = services_of(request)
    costs = services.prices.current().costs
    return [
        {
            "name": model.name,
            "tier": model.tier,
            "provider": model.provider,
            "upstream_model": model.upstream_model,
            "context": model.context,
            "price": {meter: rate / PICO_PER_USD for meter, rate in cost.plain.rates.items()} if cost else None,
            "price_source": cost.plain.source if cost else None,
            "local": model.local,
            "regions": sorted(model.regions),
            "health": {
                "failing": state.failing,
                "error_rate": round(state.error_rate, 4),
                "first_token_seconds": state.first_token,
                "seconds_per_token": state.per_token,
            },
        }
        for model, cost, state in zip(services.catalog.models, costs, services.routing.health.states(), strict=True)
    ]
