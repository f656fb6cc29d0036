"""/admin/api/router: the router's artifact, what it promises, and what past requests would become under other conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from gateway.api.admin.access import TenantName, may, services_of, tenant_for
from gateway.api.admin.shapes import Body
from gateway.catalog import Catalog, build_catalog
from gateway.chat.apart import Cards, replay_apart
from gateway.chat.replaying import Wish
from gateway.config import check_config
from gateway.config_policies import Confidence, Policy, Share
from gateway.errors import ConfigError, InvalidValue
from gateway.keys.roles import Actor

routes = APIRouter()
Reader = Annotated[Actor, may("artifacts.read")]
Replayer = Annotated[Actor, may("requests.replay")]
DAYS = 7
SAMPLE, MOST_SAMPLE = 20_000, 200_000
LONGEST = timedelta(days=366)
STAND_IN = "not-a-secret-0000"
"""In place of secrets of a configuration that calls nobody."""


class NewReplay(Body):
    """What to replay, and under what; everything that is left out is as it is configured now."""

    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None
    policy: str | dict[str, Any] | None = None
    artifact: str | None = Field(None, max_length=200, pattern=r"^[^/\\]*$")
    min_quality: Share | None = None
    sample: int = Field(SAMPLE, ge=1, le=MOST_SAMPLE)
    config: dict[str, Any] | None = None


@routes.get("/router")
async def router(
    request: Request,
    actor: Reader,
    artifact: Annotated[str | None, Query(max_length=200, pattern=r"^[^/\\]*$")] = None,
    confidence: Annotated[Confidence, Query()] = 0.95,
    tenant: TenantName = None,
) -> dict[str, Any]:
    """The artifact's card, what it promises by floor, and quality against cost on its sample and on last week's requests.

    It is made in a process of its own and kept for a minute.
    """
    try:
        return await _cards(request).card(artifact, confidence, tenant_for(actor, tenant))
    except InvalidValue as error:
        raise InvalidValue(error.message, param=error.param or "artifact") from None


@routes.post("/router/replay")
async def replay(request: Request, actor: Replayer, body: NewReplay) -> dict[str, Any]:
    """Decide past requests again under another policy, artifact, floor, or models and prices. Changes nothing."""
    services = services_of(request)
    until = _utc(body.until) or datetime.now(UTC)
    since = _utc(body.since) or until - timedelta(days=DAYS)
    if until - since > LONGEST:
        raise InvalidValue(
            f"The period has {(until - since).days} days; at most {LONGEST.days} are replayed.", param="since"
        )
    try:
        catalog = _catalog(body.config) if body.config is not None else services.catalog
        wish = Wish(
            since,
            until,
            tenant_for(actor, body.tenant),
            _policy(body.policy),
            body.artifact,
            body.min_quality,
            body.sample,
        )
    except ConfigError as error:
        raise InvalidValue(f"{error}") from None
    url = services.settings.database(services.catalog.database)
    return await run_in_threadpool(replay_apart, url, catalog, wish)


def _cards(request: Request) -> Cards:
    """Those of this process, from its first use on."""
    state, services = request.app.state, services_of(request)
    if getattr(state, "cards", None) is None:
        state.cards = Cards(services.settings.database(services.catalog.database), services.catalog)
    cards: Cards = state.cards
    return cards


def _policy(wanted: str | dict[str, Any] | None) -> Policy | str | None:
    if not isinstance(wanted, dict):
        return wanted
    return check_config({"policies": {"default": wanted}}, "policy").policies["default"]


def _catalog(document: dict[str, Any]) -> Catalog:
    """Other models, prices and policies. Their secrets are not looked up: nobody is called."""
    only = {name: document[name] for name in ("models", "policies") if name in document}
    if unknown := sorted(set(document) - set(only)):
        raise ConfigError(f"config: only `models` and `policies` can be others in a replay, not {', '.join(unknown)}.")
    config = check_config(only, "config")
    if named := [
        entry.name for entry in config.models if entry.quality is not None and entry.quality.labels is not None
    ]:
        raise ConfigError(
            f"config: `labels` of {named[0]!r} names a file, which only `penstock router replay --config` may read."
        )
    return build_catalog(config, "config", lambda name: STAND_IN)


def _utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC, as all times in Penstock are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
