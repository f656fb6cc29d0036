"""What a request's `model` stands for: `auto` with a mode, a tier, or one model; and whether the key may ask for it."""

from __future__ import annotations

import difflib
from dataclasses import field
from typing import get_args

from gateway.callers import Caller
from gateway.catalog import Catalog, Model
from gateway.chat.request import ChatRequest
from gateway.errors import InvalidValue, ModelNotAllowed, TierNotAllowed, UnknownModel
from gateway.types import TIERS, Mode
from gateway.value import value


@value
class Asked:
    """The deployments a request may be answered by, before conditions."""

    models: tuple[Model, ...]
    auto: bool = False
    mode: Mode = "standard"
    tier: str | None = None
    allowed_models: frozenset[str] | None = field(default=None)


def resolve_model(request: ChatRequest, caller: Caller, catalog: Catalog) -> Asked:
    """Look the name up. Raises UnknownModel, ModelNotAllowed, TierNotAllowed or InvalidValue."""
    name, tier = request.model, request.options.tier
    if tier is not None and caller.tiers is not None and tier not in caller.tiers:
        raise TierNotAllowed(f"The key {caller.key_name!r} may not use the tier {tier!r}.", param="penstock.tier")
    if name == "auto" or name.startswith("auto:"):
        return _auto(name, request, caller, catalog)
    if name in TIERS:
        if caller.tiers is not None and name not in caller.tiers:
            raise TierNotAllowed(f"The key {caller.key_name!r} may not use the tier {name!r}.", param="model")
        if caller.models is not None and not (caller.models & {name, "auto"} or _names(caller)):
            raise _not_allowed(name, caller)
        if tier not in (None, name):
            raise InvalidValue(
                f"model is {name!r} but penstock.tier is {tier!r}; give one of them.", param="penstock.tier"
            )
        if not catalog.models_in(name):
            tiers = sorted({model.tier for model in catalog.models}, key=TIERS.index)
            raise UnknownModel(
                f"No model is configured in the tier {name!r}. There is: {', '.join(tiers)}.", param="model"
            )
        named = caller.models is None or name in caller.models
        return Asked(catalog.models_in(name), tier=name, allowed_models=None if named else _names(caller))
    group = catalog.groups.get(name)
    if group is None:
        raise UnknownModel(_unknown(name, caller, catalog), param="model")
    if caller.models is not None and name not in caller.models:
        raise _not_allowed(name, caller)
    if caller.tiers is not None and group[0].tier not in caller.tiers:
        raise TierNotAllowed(
            f"The model {name!r} is in the tier {group[0].tier!r}, which the key {caller.key_name!r} may not use.",
            param="model",
        )
    return Asked(group, tier=tier)


def visible_models(caller: Caller, catalog: Catalog) -> list[tuple[str, str]]:
    """What `GET /v1/models` lists for a caller: names with the tier they belong to ('auto' belongs to all)."""
    listed: list[tuple[str, str]] = []
    if catalog.models and (caller.models is None or "auto" in caller.models):
        listed.append(("auto", "auto"))
    for name, group in catalog.groups.items():
        tier = group[0].tier
        if (caller.models is None or name in caller.models) and (caller.tiers is None or tier in caller.tiers):
            listed.append((name, tier))
    return listed


def _auto(name: str, request: ChatRequest, caller: Caller, catalog: Catalog) -> Asked:
    if caller.models is not None and "auto" not in caller.models:
        raise _not_allowed("auto", caller)
    word = name.partition(":")[2] or None
    if word is not None and word not in get_args(Mode):
        known = ", ".join(f"auto:{mode}" for mode in get_args(Mode))
        raise UnknownModel(f"The model {name!r} does not exist. Known forms: auto, {known}.", param="model")
    if word is not None and request.options.mode not in (None, word):
        raise InvalidValue(
            f"model is {name!r} but penstock.mode is {request.options.mode!r}; give one of them.", param="penstock.mode"
        )
    mode: Mode = word or request.options.mode or "standard"  # type: ignore[assignment]  # checked against Mode above
    return Asked(catalog.models, auto=True, mode=mode, tier=request.options.tier, allowed_models=_names(caller))


def _names(caller: Caller) -> frozenset[str] | None:
    """The model names a key is limited to. A scope of `auto` and tiers alone limits no names."""
    names = caller.models - {"auto", *TIERS} if caller.models is not None else frozenset[str]()
    return names or None


def _not_allowed(name: str, caller: Caller) -> ModelNotAllowed:
    allowed = ", ".join(sorted(caller.models or ()))
    return ModelNotAllowed(f"The key {caller.key_name!r} may not use {name!r}. It may use: {allowed}.", param="model")


def _unknown(name: str, caller: Caller, catalog: Catalog) -> str:
    known = [listed for listed, _ in visible_models(caller, catalog)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"The model {name!r} does not exist.{hint} Available: {', '.join(known) or 'none'}."
