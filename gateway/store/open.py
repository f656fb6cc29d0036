"""Choose the store: Redis when a URL is given, else the memory of this process."""

from __future__ import annotations

from gateway.errors import ConfigError
from gateway.store.base import Store
from gateway.store.memory import MemoryStore


def open_store(redis_url: str | None) -> Store:
    """A store that connects at its first call. Raises ConfigError when the URL or the redis package is missing or wrong."""
    if redis_url is None:
        return MemoryStore()
    try:
        from gateway.store.redis import RedisStore
    except ModuleNotFoundError:
        raise ConfigError(
            "a Redis URL is configured and the redis package is not installed: run pip install 'penstock[redis]'."
        ) from None
    return RedisStore(redis_url)
