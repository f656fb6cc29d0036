"""penstock.yaml with secrets resolved and prices exact: frozen models, tenants, declared keys and policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway import config as shape
from gateway.catalog_engine import command_arguments
from gateway.catalog_outlets import Outlets, build_outlets
from gateway.catalog_owners import DeclaredKey as DeclaredKey
from gateway.catalog_owners import Tenant as Tenant
from gateway.catalog_owners import build_keys, build_tenants, resolve_secret
from gateway.catalog_owners import hash_key as hash_key
from gateway.catalog_shadow import build_shadow_keys, own_payers
from gateway.config_exports import ScheduledExport
from gateway.config_policies import Placement
from gateway.config_routing import Routing
from gateway.conventions import Convention, convention_at
from gateway.errors import ConfigError
from gateway.money import implausible, parse_price
from gateway.settings import read_secret
from gateway.types import METERS, PARENTS, TIERS, Meter, PriceList, Tier

BUNDLED = "bundled"


@dataclass(frozen=True, slots=True)
class BookEntry:
    """Where in the price book a model's prices stand; `provider` is None when only one may have the name."""

    model: str
    provider: str | None
    region: str


@dataclass(frozen=True, slots=True)
class Model:
    """One deployment of a model: where it is, what it can do, what it costs at its provider.

    It has either the prices of the configuration or an entry of the price book.
    """

    name: str
    index: int
    tier: Tier
    provider: str
    upstream_model: str
    base_url: str | None
    """Where it is; the first of its `replicas` when there are several."""
    api_key: str | None = field(repr=False)
    weights: str | None
    price: PriceList | None
    book: BookEntry | None
    capabilities: frozenset[str] | None
    context: int | None
    max_output: int
    weight: int
    deadlines: shape.Deadlines
    retries: shape.Retries
    script: Mapping[str, Any] | None
    usage: Convention | None
    """How its reports count tokens; None where their own fields must tell."""
    local: bool = False
    """Whether it runs on the operator's own machines."""
    regions: frozenset[str] = frozenset()
    """Where it may run; empty when that is not known."""
    quality: shape.Known | None = None
    reasoning: bool = False
    """Whether it reasons before it answers."""
    engine_options: tuple[str, ...] = ()
    """For the bundled engine: arguments of its command line."""
    replicas: tuple[str, ...] = ()
    """Base URLs of engines that serve it alike; empty where there is one place."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything the configuration says, ready to serve from."""

    database: str | None
    redis: str | None
    tenants: dict[str, Tenant]
    keys: tuple[DeclaredKey, ...]
    models: tuple[Model, ...]
    groups: dict[str, tuple[Model, ...]]
    policies: dict[str, shape.Policy]
    max_body_bytes: int
    max_upstream_connections: int
    outlets: Outlets
    warnings: tuple[str, ...]
    billing: shape.Billing = field(default_factory=shape.Billing)
    exports: tuple[ScheduledExport, ...] = ()
    routing: Routing = field(default_factory=Routing)
    operator: str = "Penstock"

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that have a model."""
        return frozenset([model.tier for model in self.models])

    def models_in(self, tier: str) -> tuple[Model, ...]:
        """The deployments of one tier, in the order of the file."""
        return tuple(model for model in self.models if model.tier == tier)


def build_catalog(config: shape.Config, where: str, secret: Callable[[str], str | None] = read_secret) -> Catalog:
    """Resolve secrets, prices and references. Raises ConfigError that names the entry and what is missing."""
    warnings: list[str] = []
    models = tuple(_model(entry, index, where, secret) for index, entry in enumerate(config.models))
    groups: dict[str, tuple[Model, ...]] = {}
    for model in models:
        groups[model.name] = (*groups.get(model.name, ()), model)
        if model.name in TIERS or model.name.split(":")[0] == "auto":
            raise ConfigError(
                f"{where}: models.{model.index}.name {model.name!r} is a reserved word; choose another name."
            )
        if groups[model.name][0].tier != model.tier:
            raise ConfigError(f"{where}: model {model.name!r} is declared in two tiers; give its deployments one tier.")
    policies = {"default": shape.Policy(), **config.policies}
    always = ("default", *own_payers(policies.values()))
    tenants = build_tenants(config.tenants, frozenset(policies), frozenset(groups), where, always)
    keys = build_keys(config.keys, tenants, frozenset(groups), where, secret)
    keys += build_shadow_keys(policies, keys, tenants, {name: group[0].tier for name, group in groups.items()}, where)
    if not models:
        warnings.append("no models are configured: every request will be refused. Add some under `models`.")
    warnings.extend(_nowhere(config, policies, models))
    if config.cache:
        warnings.append("`cache` is read but not acted on yet: this version has no answer cache.")
    return Catalog(
        database=config.database,
        redis=config.redis,
        tenants=tenants,
        keys=keys,
        models=models,
        groups=groups,
        policies=policies,
        max_body_bytes=config.max_body_bytes,
        max_upstream_connections=config.max_upstream_connections,
        outlets=build_outlets(
            config.events,
            config.alerts,
            [(entry.name, entry.alerts) for entry in config.tenants],
            config.smtp,
            where,
            lambda text, label: resolve_secret(text, label, secret),
        ),
        warnings=tuple(warnings),
        billing=config.billing,
        exports=_exports(config, where),
        routing=config.routing,
        operator=config.billing.issuer.name if config.billing.issuer else "Penstock",
    )


def _nowhere(config: shape.Config, policies: dict[str, shape.Policy], models: tuple[Model, ...]) -> list[str]:
    """Who asks for places in which no model stands: every request would be refused."""
    asked: list[tuple[str, Placement]] = [(f"policy {name!r}", policy) for name, policy in policies.items()]
    asked += [(f"tenant {tenant.name!r}", tenant.routing) for tenant in config.tenants]
    asked += [(f"key {key.name!r}", key.routing) for key in config.keys]
    return [
        f"{who} asks for {'local models' if place.local_only else 'models'}"
        f"{' in ' + ', '.join(place.regions) if place.regions else ''}, and none is configured (`local`, `regions` of a model)."
        for who, place in asked
        if (place.local_only or place.regions)
        and not any(
            (model.local or not place.local_only)
            and (not place.regions or (model.regions and model.regions <= set(place.regions)))
            for model in models
        )
    ]


def _exports(config: shape.Config, where: str) -> tuple[ScheduledExport, ...]:
    if len({entry.name for entry in config.exports}) != len(config.exports):
        raise ConfigError(f"{where}: two entries under `exports` have the same name; names must be unique.")
    return config.exports


def _model(entry: shape.Model, index: int, where: str, secret: Callable[[str], str | None]) -> Model:
    label = f"{where}: models.{index} ({entry.name})"
    if (entry.engine is None) == (entry.provider is None):
        raise ConfigError(f"{label}: give either `engine` (self-hosted) or `provider` (external), not both or neither.")
    provider, base_url, replicas = entry.provider or "engine", entry.base_url, _replicas(entry, label)
    if entry.engine == BUNDLED:
        provider, base_url = BUNDLED, None
        if not entry.weights:
            raise ConfigError(f"{label}: `engine: bundled` needs `weights`, for example smollm2-135m-instruct.")
    elif entry.engine is not None:
        base_url = replicas[0] if isinstance(entry.engine, tuple) else entry.engine
    elif provider not in {"openai", "scripted"}:
        raise ConfigError(f"{label}: provider {provider!r} is not known. Use `openai` or `scripted`.")
    if entry.engine_options and provider != BUNDLED:
        raise ConfigError(
            f"{label}: `engine_options` are for `engine: bundled`; other servers have their own settings."
        )
    if provider not in {BUNDLED, "scripted"} and not (base_url or "").startswith(("http://", "https://")):
        raise ConfigError(f"{label}: base URL {base_url!r} must start with http:// or https:// (and end in /v1).")
    return Model(
        name=entry.name,
        index=index,
        tier=entry.tier,
        provider=provider,
        upstream_model=entry.model or entry.name,
        base_url=base_url.rstrip("/") if base_url else None,
        api_key=resolve_secret(entry.api_key, f"{label}: api_key", secret) if entry.api_key else None,
        weights=entry.weights,
        price=_price(entry.price, label) if entry.price != "book" else None,
        book=_book(entry, label),
        capabilities=frozenset(entry.capabilities) if entry.capabilities is not None else None,
        context=entry.context,
        max_output=entry.max_output,
        weight=entry.weight,
        deadlines=entry.deadlines,
        retries=entry.retries,
        script=entry.script,
        usage=entry.usage or convention_at(base_url),
        local=entry.local if entry.local is not None else provider == BUNDLED,
        regions=frozenset(entry.regions),
        quality=entry.quality,
        reasoning=entry.reasoning,
        engine_options=command_arguments(entry.engine_options, label),
        replicas=replicas if len(replicas) > 1 else (),
    )


def _replicas(entry: shape.Model, label: str) -> tuple[str, ...]:
    """The engines of a list; each once, each an address."""
    if not isinstance(entry.engine, tuple):
        return ()
    urls = tuple(url.rstrip("/") for url in entry.engine)
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{label}: engine {url!r} must start with http:// or https:// (and end in /v1).")
    if not urls or len(set(urls)) < len(urls):
        raise ConfigError(f"{label}: `engine` must name each engine once; it names {list(urls)!r}.")
    return urls


def _book(entry: shape.Model, label: str) -> BookEntry | None:
    if entry.price != "book":
        if entry.book is not None:
            raise ConfigError(f"{label}: `book` says where in the price book the price stands; write `price: book`.")
        return None
    where = entry.book or shape.Book()
    return BookEntry(where.model or entry.model or entry.name, where.provider, where.region or "")


def _price(entry: shape.Price, label: str) -> PriceList:
    given = {name: getattr(entry, name) for name in type(entry).model_fields}
    timed = given["gpu_second"] is not None
    for name in ("input", "output"):
        if given[name] is None and not timed:
            raise ConfigError(f"{label}: price.{name} is missing; write 0 if it is free.")
    given["input"] = given["input"] if given["input"] is not None else Decimal(0)
    given["output"] = given["output"] if given["output"] is not None else Decimal(0)
    given["gpu_second"] = given["gpu_second"] if timed else Decimal(0)
    names: dict[Meter, str] = {
        "cache_read": "cached_input",
        "cache_write_5m": "cache_write",
        "gpu_seconds": "gpu_second",
    }
    rates: dict[Meter, int] = {}
    for meter in METERS:
        chain = (names.get(each, each) for each in (meter, *PARENTS.get(meter, ())))
        name = next(name for name in chain if given[name] is not None)
        try:
            rates[meter] = parse_price(given[name], f"price.{name}")
        except ValueError as error:
            raise ConfigError(f"{label}: {error}.") from None
        if problem := implausible(meter, rates[meter]):
            raise ConfigError(f"{label}: price.{name}: {problem}.")
    return PriceList(rates, source="penstock.yaml")
