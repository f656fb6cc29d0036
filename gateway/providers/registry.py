"""Which provider serves which model: made from the catalog once, opened in the running loop, closed at the end."""

from __future__ import annotations

from gateway import __version__
from gateway.catalog import BUNDLED, Catalog, Model
from gateway.errors import ProviderUnreachable
from gateway.providers.base import Call, Completion, EventStream, Provider
from gateway.providers.engine import BundledEngine
from gateway.providers.http import HttpClient
from gateway.providers.openai_compatible import OpenAICompatible
from gateway.providers.replicas import Replicas
from gateway.providers.scripted import ScriptedProvider


class NoEngine:
    """Stands where the bundled engine would be: every call says that it is not running and how to start it."""

    async def complete(self, call: Call) -> Completion:
        """Raises ProviderUnreachable."""
        raise _not_running(call.model)

    async def stream(self, call: Call, *, include_usage: bool) -> EventStream:
        """Raises ProviderUnreachable."""
        raise _not_running(call.model)

    async def close(self) -> None:
        """There is nothing to release."""


class Providers:
    """The providers of all models. Made by `build_providers`."""

    def __init__(self, client: HttpClient, by_model: tuple[Provider, ...]) -> None:
        self._client = client
        self._by_model = by_model

    async def open(self) -> None:
        """Open the connection pool; must run inside the event loop that makes the calls."""
        await self._client.open()

    def for_model(self, model: Model) -> Provider:
        """The provider that serves a model of the catalog."""
        return self._by_model[model.index]

    async def close(self) -> None:
        """Release all connections."""
        for provider in set(self._by_model):
            await provider.close()
        await self._client.close()


def build_providers(catalog: Catalog, engine_url: str | None) -> Providers:
    """Providers for every model; `engine_url` is the bundled engine's base URL (ending in /v1), None when it is not run.

    Raises ConfigError for a `script` that is wrong.
    """
    client = HttpClient(max_connections=catalog.max_upstream_connections, user_agent=f"penstock/{__version__}")
    external = OpenAICompatible(client)
    bundled: Provider = BundledEngine(client, engine_url) if engine_url else NoEngine()
    scripted = ScriptedProvider({model.index: model for model in catalog.models if model.provider == "scripted"})
    kinds: dict[str, Provider] = {BUNDLED: bundled, "scripted": scripted}

    def engine(url: str) -> Provider:
        return BundledEngine(client, url)

    def serving(model: Model) -> Provider:
        if model.replicas:
            return Replicas(model.replicas, engine)
        return kinds.get(model.provider, external)

    return Providers(client, tuple(serving(model) for model in catalog.models))


def _not_running(model: Model) -> ProviderUnreachable:
    return ProviderUnreachable(
        f"model {model.name!r} is served by the bundled engine, which is not running; start it with `penstock up`."
    )
