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
    """Every deployment with its tier, place and provider price of now in USD per million units."""
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
        }
        for model, cost in zip(services.catalog.models, costs, strict=True)
    ]
