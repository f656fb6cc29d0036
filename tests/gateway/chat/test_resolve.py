"""What a request's `model` stands for, and whom a key's scope keeps out."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.callers import Caller
from gateway.chat.request import ChatRequest, Options
from gateway.chat.resolve import Asked, resolve_model, visible_models
from gateway.errors import InvalidValue, ModelNotAllowed, TierNotAllowed, UnknownModel
from tests.builders import catalog, model

CATALOG = catalog(model("small"), model("tiny"), model("large", "premium"))


def caller(models: set[str] | None = None, tiers: set[str] | None = None) -> Caller:
    return Caller(
        key_id="key_1",
        key_name="app",
        tenant="default",
        models=frozenset(models) if models is not None else None,
        tiers=frozenset(tiers) if tiers is not None else None,
    )


def resolve(name: str, who: Caller, **options: Any) -> Asked:
    request = ChatRequest("req_1", {}, name, [], False, False, Options(**options), 0.0, 0.0)
    return resolve_model(request, who, CATALOG)


def names(asked: Asked) -> list[str]:
    return [model.name for model in asked.models]


def test_a_name_a_tier_and_auto_stand_for_their_deployments() -> None:
    assert names(resolve("large", caller())) == ["large"]
    assert names(resolve("economy", caller())) == ["small", "tiny"]
    assert names(resolve("auto", caller())) == ["small", "tiny", "large"]
    assert resolve("auto:deep", caller()).mode == "deep"
    assert resolve("auto", caller(), mode="quick").mode == "quick"


@pytest.mark.parametrize("name", ["gpt", "auto:fast", "Economy", "smal"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownModel, match="does not exist"):
        resolve(name, caller())


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(UnknownModel, match="Did you mean 'small'"):
        resolve("smal", caller())


FORBIDDEN = [
    ("large", {"small"}, None),
    ("auto", {"small"}, None),
    ("premium", {"economy"}, None),
    ("large", None, {"economy"}),
    ("premium", None, {"economy"}),
]


@pytest.mark.parametrize(("name", "models", "tiers"), FORBIDDEN)
def test_a_scope_keeps_out_what_it_does_not_name(name: str, models: set[str] | None, tiers: set[str] | None) -> None:
    with pytest.raises((ModelNotAllowed, TierNotAllowed), match="may not use"):
        resolve(name, caller(models, tiers))


def test_a_tier_asked_for_by_option_is_checked_against_the_scope() -> None:
    with pytest.raises(TierNotAllowed):
        resolve("auto", caller(tiers={"economy"}), tier="premium")


def test_a_scope_of_model_names_narrows_tiers_and_auto_to_them() -> None:
    assert resolve("auto", caller({"auto", "small"})).allowed_models == {"small"}
    assert resolve("economy", caller({"small"})).allowed_models == {"small"}
    assert resolve("economy", caller({"economy", "large"})).allowed_models is None
    assert resolve("auto", caller({"auto"})).allowed_models is None


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidValue):
        resolve("economy", caller(), tier="premium")
    with pytest.raises(InvalidValue):
        resolve("auto:quick", caller(), mode="deep")


def test_a_key_sees_what_it_may_ask_for() -> None:
    assert visible_models(caller(), CATALOG) == [
        ("auto", "auto"), ("small", "economy"), ("tiny", "economy"), ("large", "premium"),
    ]  # fmt: skip
    assert visible_models(caller({"auto", "large"}), CATALOG) == [("auto", "auto"), ("large", "premium")]
