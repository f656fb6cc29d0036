"""GET /v1/models: what the caller's key may ask for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from gateway.chat.resolve import visible_models
from gateway.errors import UnknownModel
from gateway.services import Services

router = APIRouter()


async def _visible(request: Request) -> list[dict[str, Any]]:
    services: Services = request.app.state.services
    caller = await services.keys.authenticate(request.headers.get("authorization"))
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "penstock", "tier": tier}
        for name, tier in visible_models(caller, services.catalog)
    ]


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The list, in OpenAI's shape, with the tier of each model beside it."""
    return {"object": "list", "data": await _visible(request)}


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """One model by name."""
    for model in await _visible(request):
        if model["id"] == name:
            return model
    raise UnknownModel(f"The model {name!r} does not exist or your key may not use it.", param="model")
