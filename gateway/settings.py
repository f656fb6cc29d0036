"""Every environment variable Penstock reads: name, default, help. The only reader of os.environ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable as documented."""

    name: str
    default: str | None
    help: str


SETTINGS: tuple[Setting, ...] = (
    Setting("PENSTOCK_CONFIG", None, "Path of penstock.yaml. Without one, `penstock up` uses its built-in configuration."),
    Setting("PENSTOCK_HOST", "127.0.0.1", "Address the gateway listens on."),
    Setting("PENSTOCK_PORT", "4000", "Port the gateway listens on; 0 lets the system choose."),
    Setting("PENSTOCK_DATA_DIR", ".penstock", "Folder for the database, the spool, weights and the first key."),
    Setting("PENSTOCK_ADMIN_KEY", None, "Key of the admin API. `penstock up` makes one when it is absent."),
    Setting("PENSTOCK_WORKERS", "1", "Gateway processes; more than one needs Redis and PostgreSQL."),
    Setting("PENSTOCK_LOG_LEVEL", "info", "debug, info, warning or error."),
    Setting("DATABASE_URL", None, "SQLite or PostgreSQL; overrides `database` in penstock.yaml."),
    Setting("REDIS_URL", None, "Shared store for limits and budgets; overrides `redis` in penstock.yaml."),
    Setting("PENSTOCK_ENGINE_API_KEY", None, "Key between gateway and bundled engine; `penstock up` makes one at each start."),
    Setting("OPENAI_API_KEY", None, "With it, `penstock up` adds a premium tier at OpenAI to its built-in configuration."),
    Setting("OPENAI_BASE_URL", "https://api.openai.com/v1", "Where that premium tier is reached."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment, read once at the start."""

    config: Path | None
    host: str
    port: int
    data_dir: Path
    admin_key: str | None = field(repr=False)
    workers: int
    log_level: str
    database_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    openai_api_key: str | None = field(repr=False)
    openai_base_url: str

    @property
    def spool(self) -> Path:
        """The folder of the durable spool."""
        return self.data_dir / "spool"

    def database(self, declared: str | None) -> str:
        """DATABASE_URL, else `database` of the configuration, else SQLite in the data folder."""
        return self.database_url or declared or f"sqlite:///{self.data_dir.resolve() / 'penstock.db'}"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read all settings. Raises ConfigError naming the variable and the value that is wrong."""
    source = os.environ if environ is None else environ
    values = {setting.name: source.get(setting.name) or setting.default for setting in SETTINGS}
    config = values["PENSTOCK_CONFIG"]
    return Settings(
        config=Path(config) if config else None,
        host=values["PENSTOCK_HOST"] or "127.0.0.1",
        port=_integer("PENSTOCK_PORT", values["PENSTOCK_PORT"], 0, 65535),
        data_dir=Path(values["PENSTOCK_DATA_DIR"] or ".penstock"),
        admin_key=values["PENSTOCK_ADMIN_KEY"],
        workers=_integer("PENSTOCK_WORKERS", values["PENSTOCK_WORKERS"], 1, 256),
        log_level=_one_of("PENSTOCK_LOG_LEVEL", values["PENSTOCK_LOG_LEVEL"], ("debug", "info", "warning", "error")),
        database_url=values["DATABASE_URL"],
        redis_url=values["REDIS_URL"],
        openai_api_key=values["OPENAI_API_KEY"],
        openai_base_url=values["OPENAI_BASE_URL"] or "https://api.openai.com/v1",
    )


def read_secret(name: str) -> str | None:
    """The value of an `env:NAME` reference in penstock.yaml; None when it is not set."""
    return os.environ.get(name) or None


def environment_for_child(**changes: str) -> dict[str, str]:
    """This process's environment with changes, for a supervised child process."""
    return {**os.environ, **changes}


def _integer(name: str, value: str | None, low: int, high: int) -> int:
    try:
        number = int(value or "")
    except ValueError:
        raise ConfigError(f"{name} is {value!r}: give a whole number from {low} to {high}.") from None
    if not low <= number <= high:
        raise ConfigError(f"{name} is {value!r}: give a whole number from {low} to {high}.")
    return number


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> str:
    lowered = (value or "").lower()
    if lowered not in known:
        raise ConfigError(f"{name} is {value!r}: give one of {', '.join(known)}.")
    return lowered
