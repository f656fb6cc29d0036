"""penstock.yaml becomes a catalog, or an error that names the key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.catalog import build_catalog, hash_key
from gateway.config import check_config, read_config
from gateway.errors import ConfigError
from tests.builders import catalog, model


def test_an_absent_price_is_its_parents_price() -> None:
    built = catalog(model("m", price={"input": 2.5, "output": 10, "cached_input": 1.25}))
    rates = built.models[0].price.rates
    assert rates["input"] == 2_500_000_000_000
    assert rates["cache_read"] == 1_250_000_000_000
    assert rates["cache_write_5m"] == rates["input"]
    assert rates["reasoning"] == rates["output"] == 10_000_000_000_000
    assert rates["gpu_seconds"] == 0


def test_the_same_name_twice_is_one_group() -> None:
    built = catalog(model("m"), model("m", weight=3), model("other"))
    assert [deployment.weight for deployment in built.groups["m"]] == [1, 3]


def test_secrets_come_from_the_environment_and_only_their_hash_is_kept() -> None:
    config = check_config({"keys": [{"key": "env:APP_KEY", "name": "app"}]}, "test.yaml")
    built = build_catalog(config, "test.yaml", secret={"APP_KEY": "sk-very-secret-value"}.get)
    assert built.keys[0].hash == hash_key("sk-very-secret-value")
    assert "sk-very-secret-value" not in repr(built)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"modles": []}, "unknown key 'modles'; did you mean 'models'?"),
    ({"models": [model("m", teir="x")]}, "unknown key 'models.0.teir'; did you mean 'tier'?"),
    ({"models": [model("m", price={"input": 1, "ouput": 2})]}, "did you mean 'output'?"),
    ({"models": [model("m", tier="luxury")]}, "models.0.tier"),
    ({"models": [{"name": "m", "tier": "economy", "provider": "scripted"}]}, "models.0.price: is required"),
    ({"models": [model("m", price={"input": 1})]}, "price.output is missing"),
    ({"models": [model("m", price={"input": -1, "output": 1})]}, "must not be negative"),
    ({"models": [model("m", price={"input": float("nan"), "output": 1})]}, "price.input"),
    ({"models": [model("m", price={"input": 2_500_000, "output": 1})]}, "not plausible"),
    ({"models": [model("m", price={"input": 0.0000025, "output": 1})]}, "a price per token is a million times smaller"),
    ({"models": [model("m", price={"gpu_second": 3600})]}, "3600 USD per second is not plausible"),
    ({"models": [model("m", price={"input": "0.0000000000001", "output": 1})]}, "more than 12 decimals"),
    ({"models": [model("m", book={"model": "x"})]}, "write `price: book`"),
    ({"models": [model("m", price="book", book={"modle": "x"})]}, "did you mean 'model'?"),
    ({"models": [model("m", provider="acme-ai")]}, "provider 'acme-ai' is not known"),
    ({"models": [model("m", provider="openai", base_url="api.openai.com")]}, "must start with http"),
    ({"models": [{"name": "m", "tier": "economy", "price": {"input": 1, "output": 1}}]}, "give either `engine`"),
    ({"models": [model("m", engine="bundled")]}, "needs `weights`"),
    (
        {"models": [model("m", engine="bundled", weights="w", engine_options={"port": 1})]},
        "engine_options.port is nothing",
    ),
    ({"models": [model("m", engine="bundled", weights="w", engine_options={"-x": 1})]}, "engine_options.-x is nothing"),
    ({"models": [model("m", engine_options={"quantize": "int8"})]}, "are for `engine: bundled`"),
    ({"models": [model("auto")]}, "reserved word"),
    ({"models": [model("economy")]}, "reserved word"),
    ({"models": [model("m"), model("m", tier="premium")]}, "declared in two tiers"),
    ({"keys": [{"key": "env:NOT_SET_ANYWHERE", "name": "app"}]}, "'NOT_SET_ANYWHERE', which is not set"),
    ({"keys": [{"key": "sk-12345678", "name": "app", "tenant": "acme"}]}, "tenant 'acme' is not declared"),
    ({"keys": [{"key": "sk-12345678", "name": "app", "models": ["gtp"]}]}, "model 'gtp' is not configured"),
    ({"keys": [{"key": "sk-12345678", "name": "a"}, {"key": "sk-12345678", "name": "b"}]}, "same secret"),
    ({"tenants": [{"name": "a"}, {"name": "a"}]}, "two tenants have the same name"),
    ({"tenants": [{"name": "a", "policy": "cheap"}]}, "policy 'cheap' does not exist"),
    ({"tenants": [{"name": "a", "budget": {"limit_usd": 10_000_000}}]}, "at most 9000000 USD"),
    ({"policies": {"default": {"min_quality": 1.5}}}, "policies.default.min_quality"),
    ({"models": [model("m", retries={"on": ["everything"]})]}, "models.0.retries.on"),
]


@pytest.mark.parametrize(("document", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_configuration_is_refused_with_a_message_that_says_what_is_wrong(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build_catalog(check_config(document, "test.yaml"), "test.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("test.yaml: ")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        check_config({"modles": [], "kyes": []}, "test.yaml")
    assert "models" in str(error.value)
    assert "keys" in str(error.value)


def test_a_number_is_shown_as_it_was_typed() -> None:
    with pytest.raises(ConfigError, match=r"greater than or equal to 0, got -100$"):
        check_config({"billing": {"reconciliation": {"rounding_usd": -100}}}, "p.yaml")


def test_a_secret_never_appears_in_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        check_config({"keys": [{"key": "short", "name": "app"}]}, "test.yaml")
    assert "short" not in str(error.value)


def test_a_file_that_is_missing_or_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nowhere.yaml"):
        read_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("models: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(broken)


def test_places_where_no_model_stands_are_a_warning_that_names_who_asks() -> None:
    models = [model("home", local=True), model("eu", regions=["eu"]), model("world", regions=["eu", "us"])]
    placed = {"policies": {"fine": {"local_only": True}, "europe": {"regions": ["eu", "ch"]}}}
    assert catalog(*models, **placed).warnings == ()
    wrong: dict[str, Any] = {
        "policies": {"private": {"local_only": True, "regions": ["eu"]}},
        "tenants": [{"name": "acme", "routing": {"regions": ["us"]}}],
        "keys": [{"key": "sk-12345678", "name": "app", "routing": {"regions": ["eu"], "local_only": True}}],
    }
    warnings = catalog(*models, **wrong).warnings
    assert [warning.split(" asks for ")[0] for warning in warnings] == [
        "policy 'private'",
        "tenant 'acme'",
        "key 'app'",
    ]
    assert "local models in eu, and none is configured" in warnings[0]
