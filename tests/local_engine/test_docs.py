"""docs/engine.md says what the code does: every option with its default, endpoint, error code and metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from starlette.routing import Route

from local_engine import errors
from local_engine.__main__ import main
from local_engine.gguf_vocabulary import SPLITS
from local_engine.metrics import EngineMetrics
from local_engine.models.gguf_file import READABLE_TYPES
from local_engine.models.registry import FAMILIES
from local_engine.server import Service, create_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next one of the same level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/engine.md has no section {title!r}"
    return found[2]


def first_column(text: str) -> dict[str, str]:
    """First cell of each table row -> the whole row."""
    rows = re.findall(r"^\| `([^`]+)`(.*)$", text, re.MULTILINE)
    return dict(rows)


def all_errors(base: type[errors.EngineError]) -> set[type[errors.EngineError]]:
    return {base}.union(*(all_errors(each) for each in base.__subclasses__()))


@pytest.mark.parametrize("name", ["serve", "fetch", "bench", "quantize", "perplexity", "prune", "train-drafter"])
def test_every_option_is_on_the_page_with_its_default(name: str) -> None:
    command = main.commands[name]
    documented = first_column(section(f"python -m local_engine {name}"))
    options = {max(p.opts, key=len): p for p in command.params if isinstance(p, click.Option)}
    assert set(documented) == set(options)
    for option, parameter in options.items():
        default = parameter.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        if not parameter.is_flag and isinstance(default, str | int | Path | tuple):
            assert f"| {shown} |" in documented[option], option


def test_every_endpoint_is_on_the_page() -> None:
    routes = {
        f"{method} {route.path.replace('{model:path}', '{model}')}"
        for route in create_app(Service("any")).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert set(first_column(section("Endpoints"))) == routes


def test_every_error_code_a_client_can_get_is_on_the_page_with_its_status() -> None:
    codes = {}
    for error in all_errors(errors.EngineError) - all_errors(errors.ModelError) - {errors.RequestError}:
        codes[error.code] = error.status
    documented = first_column(section("Errors"))
    assert set(documented) == set(codes)
    assert all(f"| {status} |" in documented[code] for code, status in codes.items())


def test_every_metric_is_on_the_page() -> None:
    metrics = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in EngineMetrics("any").registry.collect()
    }
    assert set(first_column(section("Metrics"))) == metrics


def test_every_architecture_is_on_the_page() -> None:
    rows = first_column(section("Models"))
    assert set(rows) == {family.architecture for family in FAMILIES}
    for family in FAMILIES:
        assert all(f"`{name}`" in rows[family.architecture] for name in family.classes)
        assert family.covers in rows[family.architecture]


@pytest.mark.parametrize("kind", READABLE_TYPES)
def test_every_tensor_type_is_on_the_page(kind: str) -> None:
    assert re.search(rf"\b{kind}\b", section("Models"))


@pytest.mark.parametrize("split", SPLITS)
def test_every_pre_tokenizer_is_on_the_page(split: str) -> None:
    assert f"`{split}`" in section("Models")
