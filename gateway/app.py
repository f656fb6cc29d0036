"""The gateway's table of contents: which routes there are, who may call them, and what starts and stops with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway import __version__
from gateway.api import admin, health, models
from gateway.api.asgi import JsonBodies
from gateway.api.chat import chat_completions
from gateway.api.errors import install_error_handlers
from gateway.api.feedback import feedback
from gateway.catalog import Catalog
from gateway.errors import ConfigError, StartupError, Unavailable
from gateway.garbage import keep_what_is_loaded
from gateway.middleware import Front, HotRoute
from gateway.services import close_services, open_services
from gateway.settings import Settings

HOT_ROUTES: dict[str, HotRoute] = {"/v1/chat/completions": chat_completions, "/v1/feedback": feedback}
"""Served without a framework. Each authenticates its caller first."""

OPEN_ROUTES = frozenset({*health.PATHS, "/metrics", "/admin", "/admin/api/openapi.json"})
"""The only routes that need neither a key nor the admin key: they show no tenant's data."""


def create_app(settings: Settings, catalog: Catalog, engine_url: str | None = None) -> Front:
    """Build the ASGI application. Parts are opened when the server starts it and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            services = await open_services(settings, catalog, engine_url)
        except (ConfigError, StartupError, Unavailable) as error:
            front.failure = error
            raise
        app.state.services = front.services = services
        keep_what_is_loaded(look_after=10_000)
        try:
            yield
        finally:
            await close_services(services)

    rest = FastAPI(
        title="Penstock",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/admin/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    install_error_handlers(rest)
    rest.add_middleware(JsonBodies, under="/admin/api/")
    rest.include_router(health.router)
    rest.include_router(models.router)
    rest.include_router(admin.router)
    front = Front(HOT_ROUTES, rest)
    return front
