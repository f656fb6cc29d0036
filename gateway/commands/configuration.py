"""Which configuration counts, and which database it means. Everything wrong is a ConfigError."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import ConfigError
from gateway.settings import Settings, read_secret

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.config import Retention

ENGINE_KEY = "PENSTOCK_ENGINE_API_KEY"
"""The variable from which the engine takes the key it asks for, and the gateway the key it sends."""


def load_catalog(settings: Settings) -> Catalog:
    """Read the configuration file that the settings name; the bundled engine's key is added where `up` made one."""
    from gateway.catalog import BUNDLED, build_catalog
    from gateway.config import read_config

    if settings.config is None:
        raise ConfigError(
            "no configuration is given. Name one with --config or PENSTOCK_CONFIG, "
            "or run `penstock up`, which has one built in."
        )
    config = read_config(settings.config)
    if read_secret(ENGINE_KEY):
        models = tuple(
            entry.model_copy(update={"api_key": f"env:{ENGINE_KEY}"}) if entry.engine == BUNDLED else entry
            for entry in config.models
        )
        config = config.model_copy(update={"models": models})
    return build_catalog(config, str(settings.config))


def known_catalog(settings: Settings) -> Catalog:
    """What commands need to know of the configuration, whose secrets need not be set here; without one, `default` alone.

    Webhooks and mail are left out: their secrets have a form that no stand-in has, and these commands send nothing.
    """
    import secrets

    from gateway.catalog import build_catalog
    from gateway.config import Config, read_config

    config = read_config(settings.config) if settings.config else Config()
    tenants = tuple(entry.model_copy(update={"alerts": None}) for entry in config.tenants)
    config = config.model_copy(update={"events": None, "alerts": None, "smtp": None, "tenants": tenants})
    return build_catalog(config, str(settings.config), lambda name: read_secret(name) or secrets.token_hex(16))


def configured_database_url(settings: Settings) -> str:
    """The same for commands that only need the database: the configuration's secrets are not looked up."""
    from gateway.config import read_config

    return settings.database(read_config(settings.config).database if settings.config else None)


def configured_retention(settings: Settings) -> Retention:
    """How long requests are kept; for ever without a configuration."""
    from gateway.config import Retention, read_config

    return read_config(settings.config).retention if settings.config else Retention()


def publishes_usage(settings: Settings) -> bool:
    """Whether somebody wants to hear of metered requests; without a subscriber nothing is written for one."""
    from gateway.config import read_config

    return settings.config is not None and read_config(settings.config).events is not None


def check_workers(settings: Settings, catalog: Catalog, url: str) -> None:
    """Refuse several processes without shared counters: every process would grant the whole budget again."""
    if settings.workers == 1:
        return
    if not (settings.redis_url or catalog.redis):
        raise ConfigError(
            f"{settings.workers} workers need Redis: without it each one would grant every limit and budget again. "
            "Set REDIS_URL (or `redis:` in the configuration), or use one worker."
        )
    if url.startswith("sqlite"):
        raise ConfigError(
            f"{settings.workers} workers need PostgreSQL: SQLite lets one process write at a time. "
            "Set DATABASE_URL (or `database:` in the configuration), or use one worker."
        )


@dataclass(frozen=True, slots=True)
class Bundled:
    """What the bundled engine holds, and the name under which the gateway asks for it."""

    weights: str
    upstream_model: str
    options: tuple[str, ...] = ()


def bundled_engine(catalog: Catalog) -> Bundled | None:
    """What the configuration wants of the bundled engine, None for nothing. One engine holds one model."""
    from gateway.catalog import BUNDLED

    wanted = {
        Bundled(model.weights, model.upstream_model, model.engine_options)
        for model in catalog.models
        if model.provider == BUNDLED and model.weights
    }
    if len(wanted) > 1:
        names = sorted(" ".join((f"{each.upstream_model} ({each.weights})", *each.options)) for each in wanted)
        raise ConfigError(
            f"`engine: bundled` is used for different models: {', '.join(names)}. One `penstock up` runs one of them; "
            "serve the others with `penstock engine serve` and give their URL as `engine`."
        )
    return wanted.pop() if wanted else None


def check_engine(catalog: Catalog, engine_url: str | None) -> None:
    """Refuse a configuration whose bundled model would have no engine behind it."""
    from gateway.catalog import BUNDLED

    bundled = [model.name for model in catalog.models if model.provider == BUNDLED]
    if bundled and engine_url is None:
        raise ConfigError(
            f"model {bundled[0]!r} has `engine: bundled`, and no engine runs. Use `penstock up`, "
            "or start one with `penstock engine serve` and name it with --engine-url."
        )


def check_names(settings: Settings, *, tenant: str, models: Iterable[str]) -> None:
    """Refuse a tenant or model that the configuration does not have; without a configuration only `default` exists."""
    from gateway.config import Config, read_config
    from gateway.types import TIERS

    config = read_config(settings.config) if settings.config else Config()
    tenants = sorted({"default", *(entry.name for entry in config.tenants)})
    if tenant not in tenants:
        raise ConfigError(f"tenant {tenant!r} is not declared in the configuration. Known: {', '.join(tenants)}.")
    known = {"auto", *TIERS, *(entry.name for entry in config.models)}
    unknown = [model for model in models if model not in known] if settings.config else []
    if unknown:
        raise ConfigError(f"model {unknown[0]!r} is not configured. Known: {', '.join(sorted(known))}.")
