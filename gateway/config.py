"""The shape of penstock.yaml: every key, its type and default; unknown keys are refused with the nearest right one."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from gateway.config_exports import ScheduledExport
from gateway.config_outlets import Alerts, Events, Mail
from gateway.config_owners import BillTo as BillTo
from gateway.config_owners import Key as Key
from gateway.config_owners import Tenant as Tenant
from gateway.config_policies import Policy as Policy
from gateway.config_policies import Region
from gateway.config_routing import Routing
from gateway.config_section import PRINTABLE, Section, Usd
from gateway.config_yaml import load_yaml
from gateway.conventions import Convention
from gateway.errors import ConfigError
from gateway.mistakes import given, unknown_key, words
from gateway.types import Tier


class Issuer(Section):
    """Who issues the invoices."""

    name: str = Field(min_length=1, max_length=200, description="Legal name; its invoices are numbered without gaps.")
    address: str | None = Field(None, max_length=1000, description="Address on invoices; line breaks are kept.")
    tax_id: str | None = Field(None, max_length=100, description="The issuer's tax number.")


class Reconciliation(Section):
    """What a provider's bill may differ from our book without being looked at."""

    rounding_usd: Usd = Field(
        Decimal("0.005"), ge=0, le=1, description="Most that one line of a bill may be rounded by."
    )
    variance_usd: Usd = Field(
        Decimal("0.01"), ge=0, description="Most that may stay undecided when a month is signed off."
    )


class Billing(Section):
    """Invoices."""

    issuer: Issuer | None = Field(None, description="Who issues the invoices; nothing is invoiced without one.")
    currency: Literal["USD"] = Field("USD", description="Currency of invoices.")
    font: Path | None = Field(None, description="TrueType font of the PDFs; needed outside Western European letters.")
    reconciliation: Reconciliation = Field(Reconciliation(), description="Tolerances of `penstock reconcile`.")


class Price(Section):
    """USD per one million tokens; what is absent costs what its parent costs."""

    input: Usd | None = Field(None, description="Uncached input tokens.")
    output: Usd | None = Field(None, description="Visible output tokens.")
    cached_input: Usd | None = Field(None, description="Input read from the provider's cache; `input` when absent.")
    cache_write: Usd | None = Field(None, description="Input written to a 5 minute cache; `input` when absent.")
    cache_write_1h: Usd | None = Field(None, description="Input written to a 1 hour cache; `cache_write` when absent.")
    reasoning: Usd | None = Field(None, description="Reasoning tokens; `output` when absent.")
    audio_input: Usd | None = Field(None, description="Audio input tokens; `input` when absent.")
    image_input: Usd | None = Field(None, description="Image input tokens; `input` when absent.")
    audio_output: Usd | None = Field(None, description="Audio output tokens; `output` when absent.")
    gpu_second: Usd | None = Field(None, description="USD per second of own engine time; token prices default to 0.")


class Book(Section):
    """Where in the price book a model's price stands."""

    model: str | None = Field(
        None, min_length=1, description="Name in the price book; the upstream's name when absent."
    )
    provider: str | None = Field(None, min_length=1, description="Whose price; needed when several have the name.")
    region: str | None = Field(None, min_length=1, description="Region whose prices count before those for everywhere.")


class Deadlines(Section):
    """How long one upstream call may take, seconds."""

    connect: float = Field(5.0, gt=0, description="Until the connection is open.")
    first_token: float = Field(60.0, gt=0, description="Until the first event of a stream.")
    between_tokens: float = Field(30.0, gt=0, description="Between two chunks of a stream.")
    total: float = Field(600.0, gt=0, description="From start to end.")


RetryOn = Literal["unreachable", "rate_limited", "failed", "timeout", "bad_reply"]


class Retries(Section):
    """Repeating a call at the same upstream; off unless an error is named."""

    on: tuple[RetryOn, ...] = Field(
        ("unreachable",), description="Errors after which the same upstream is asked again."
    )
    max: int = Field(1, ge=0, le=10, description="Repeats per upstream.")
    backoff: float = Field(
        0.2, ge=0, le=60, description="Seconds before the first repeat, doubled for each further one."
    )


class Known(Section):
    """What is known of how good a model is, beside its tier."""

    benchmarks: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="Published scores 0 to 1, by a domain of the router's artifact."
    )
    recorded: str | None = Field(None, description="Its name among the models that the artifact was trained on.")
    labels: Path | None = Field(
        None, description="JSON lines that say how good its answers were; a path from the configuration's folder."
    )

    @field_validator("labels")
    @classmethod
    def _from_the_folder(cls, labels: Path | None, info: ValidationInfo) -> Path | None:
        return labels and Path((info.context or {}).get("folder", "")) / labels


class Model(Section):
    """A model at a place, with its price. The same name twice is one load-balanced group."""

    name: str = Field(min_length=1, max_length=200, pattern=PRINTABLE, description="What clients ask for.")
    tier: Tier = Field(description="economy, standard, premium or deep.")
    engine: str | tuple[str, ...] | None = Field(
        None,
        description="`bundled`, or the base URL of a self-hosted server ending in /v1, or a list of those that serve it alike.",
    )
    weights: str | None = Field(None, description="For `engine: bundled`: a known name, a path or a hub id.")
    engine_options: dict[str, bool | int | float | str] = Field(
        {}, description="For `engine: bundled`: options of `penstock engine serve`, such as `quantize: int8`."
    )
    provider: str | None = Field(
        None, description="`openai` for any OpenAI-compatible API, `scripted` for tests and demos."
    )
    model: str | None = Field(None, description="The upstream's name of the model; `name` when absent.")
    base_url: str | None = Field(None, description="Where the provider's API is, ending in /v1.")
    api_key: str | None = Field(None, description="The provider's key, normally `env:NAME`.")
    price: Price | Literal["book"] = Field(description="USD per 1M tokens, or `book` for those of the price book.")
    book: Book | None = Field(None, description="For `price: book`: where in the book.")
    usage: Convention | None = Field(
        None, description="How its reports count tokens; by the host of `base_url`, else by the report's own fields."
    )
    capabilities: tuple[Literal["tools", "json_schema", "vision", "audio"], ...] | None = Field(
        None, description="What it can do; unrestricted when absent."
    )
    reasoning: bool = Field(
        False, description="Whether it reasons before it answers; its expected price and time then count that as well."
    )
    context: int | None = Field(None, gt=0, description="Tokens of prompt and answer together; unlimited when absent.")
    max_output: int = Field(4096, gt=0, description="Output tokens assumed for the hold when a request names none.")
    regions: tuple[Region, ...] = Field((), description="Where it may run; policies can ask for regions.")
    local: bool | None = Field(
        None, description="Whether it runs on the operator's own machines; so when absent if `engine: bundled`."
    )
    quality: Known | None = Field(None, description="How good it is; as its tier when absent.")
    weight: int = Field(1, gt=0, le=1000, description="Share of the traffic within its group.")
    deadlines: Deadlines = Field(Deadlines(), description="How long its calls may take.")
    retries: Retries = Field(Retries(), description="When the same upstream is asked again.")
    script: dict[str, Any] | None = Field(None, description="For `provider: scripted`: how it behaves.")


class Retention(Section):
    """How long requests are kept one by one. Ledger, invoices and sums by hour and day are kept for ever."""

    requests_days: int | None = Field(
        None,
        ge=31,
        le=36500,
        description="Days after a month's end until its requests are removed, if it is closed; at least 31.",
    )
    explanations_days: int | None = Field(
        None, ge=1, le=36500, description="Days after a month's end until its requests lose why they were routed so."
    )


class Config(Section):
    """The whole file."""

    database: str | None = Field(None, description="SQLAlchemy URL; SQLite in the data folder when absent.")
    redis: str | None = Field(None, description="Redis URL for several gateway processes; in memory when absent.")
    tenants: tuple[Tenant, ...] = Field((), description="Who is billed; `default` exists always.")
    billing: Billing = Field(Billing(), description="Invoices.")
    exports: tuple[ScheduledExport, ...] = Field((), description="Exports that are written by themselves.")
    keys: tuple[Key, ...] = Field((), description="Keys declared here.")
    models: tuple[Model, ...] = Field((), description="What can answer.")
    policies: dict[str, Policy] = Field({}, description="Routing policies by name; `default` exists always.")
    routing: Routing = Field(Routing(), description="Artifacts of the router in production.")
    retention: Retention = Field(Retention(), description="How long requests are kept; for ever when absent.")
    events: Events | None = Field(None, description="Where every metered request is sent; nowhere when absent.")
    alerts: Alerts | None = Field(None, description="Who hears when the operator should look at something.")
    smtp: Mail | None = Field(None, description="The server that sends mail; needed when alerts name addresses.")
    cache: dict[str, Any] | None = Field(None, description="Answer caches; read, not yet acted on by this version.")
    max_body_bytes: int = Field(20 * 1024 * 1024, gt=0, description="Largest request body.")
    max_upstream_connections: int = Field(1000, gt=0, description="Open upstream connections per gateway process.")


SECRETS = frozenset({"key", "api_key", "secret", "password", "url", "access_key_id", "secret_access_key"})
"""Keys whose values are never shown."""


def read_config(path: Path) -> Config:
    """Read and check a penstock.yaml. Raises ConfigError naming the file, the key, and the nearest right key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {error.strerror}.") from error
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return check_config(document if document is not None else {}, str(path), path.parent)


def check_config(document: object, where: str, folder: Path | None = None) -> Config:
    """Check a parsed document, whose paths start in `folder`. Raises ConfigError with one line for each thing that is wrong."""
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected keys such as `models:` at the top, got {type(document).__name__}.")
    try:
        return Config.model_validate(document, context={"folder": folder or Path()})
    except ValidationError as error:
        lines = [_explain(dict(problem), document) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines))) from None


def _explain(problem: dict[str, Any], document: object) -> str:
    location: tuple[str | int, ...] = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return unknown_key(_dotted(location), location, Config)
    # Whole sections are not shown either: there may be secrets in them.
    secret = isinstance(problem["input"], dict) or SECRETS.intersection(location[-1:])
    hidden = secret or problem["type"] == "missing"
    shown = "" if hidden else f", got {given(problem)}"
    return f"{_dotted(location)}: {words(problem)}{shown}"


def _dotted(location: tuple[str | int, ...]) -> str:
    names = [part for part in location if not (isinstance(part, str) and part in {"Price", "literal['book']"})]
    return ".".join(str(part) for part in names)
