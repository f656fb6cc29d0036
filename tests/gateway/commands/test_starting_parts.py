"""What `up` and `serve` check before they start: folder, lock, secrets, address, workers, engine."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.builtin import built_in_config
from gateway.catalog import Catalog, build_catalog
from gateway.commands.configuration import Bundled, bundled_engine, check_engine, check_workers
from gateway.commands.data_folder import lock_data_folder, open_data_folder, read_secret_file, write_secret_file
from gateway.commands.listen import base_url, listen
from gateway.config import check_config
from gateway.errors import ConfigError, StartupError
from gateway.settings import read_settings


def catalog(*models: dict[str, Any], **more: Any) -> Catalog:
    """A catalog of these models, all economy tier at a price."""
    entries = [{"tier": "economy", "price": {"input": 1, "output": 1}, **model} for model in models]
    return build_catalog(check_config({"models": entries, **more}, "test"), "test")


def test_a_data_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "a" / "b")
    assert folder.path.is_dir()
    assert list(folder.path.iterdir()) == []


def test_a_file_in_place_of_the_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match="cannot be written"):
        open_data_folder(tmp_path / "data")


def test_a_data_folder_has_one_user_at_a_time_and_is_free_afterwards(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path)
    held = lock_data_folder(folder)
    with pytest.raises(StartupError, match=f"in use by another Penstock \\(process {os.getpid()}\\)"):
        lock_data_folder(folder)
    os.close(held)
    os.close(lock_data_folder(folder))


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "first-key"
    assert read_secret_file(path) is None
    write_secret_file(path, "sk-one")
    write_secret_file(path, "sk-two")
    assert read_secret_file(path) == "sk-two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use .*--port or PENSTOCK_PORT"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(StartupError, match=host):
        listen(host, 0)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_base_url_is_one_that_this_machine_can_reach(host: str, shown: str) -> None:
    with listen(host, 0) as listener:
        assert base_url(listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_several_workers_need_redis_and_postgresql() -> None:
    settings = read_settings({"PENSTOCK_WORKERS": "4"})
    with pytest.raises(ConfigError, match="4 workers need Redis"):
        check_workers(settings, catalog(), "postgresql://h/d")
    with pytest.raises(ConfigError, match="4 workers need PostgreSQL"):
        check_workers(settings, catalog(redis="redis://127.0.0.1/0"), "sqlite:///x.db")
    check_workers(replace(settings, redis_url="redis://127.0.0.1/0"), catalog(), "postgresql://h/d")
    check_workers(read_settings({}), catalog(), "sqlite:///x.db")


def test_one_engine_holds_one_model() -> None:
    small, large = ({"name": name, "engine": "bundled", "weights": f"{name}.gguf"} for name in ("small", "large"))
    assert bundled_engine(catalog()) is None
    assert bundled_engine(catalog(small, small)) == Bundled("small.gguf", "small")
    with pytest.raises(ConfigError, match=r"large \(large.gguf\), small \(small.gguf\)"):
        bundled_engine(catalog(small, large))


def test_options_of_the_bundled_engine_become_arguments_of_its_command() -> None:
    small = {"name": "small", "engine": "bundled", "weights": "small.gguf"}
    options = {"quantize": "int8", "max_batch": 4, "prefix_sharing": False, "speculate": False}
    expected = ("--quantize=int8", "--max-batch=4", "--no-prefix-sharing", "--speculate=off")
    assert bundled_engine(catalog({**small, "engine_options": options})) == Bundled("small.gguf", "small", expected)
    with pytest.raises(ConfigError, match="different models"):
        bundled_engine(catalog(small, {**small, "engine_options": options}))


def test_a_bundled_model_without_an_engine_is_refused() -> None:
    bundled = catalog({"name": "small", "engine": "bundled", "weights": "small.gguf"})
    with pytest.raises(ConfigError, match="'small' has `engine: bundled`"):
        check_engine(bundled, None)
    check_engine(bundled, "http://127.0.0.1:1/v1")


def test_the_built_in_configuration_has_a_premium_tier_exactly_when_there_is_a_key() -> None:
    without = built_in_config(read_settings({}), engine=True)
    assert [model["name"] for model in without["models"]] == ["smollm2"]
    settings = read_settings({"OPENAI_API_KEY": "sk-very-secret", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})
    document = built_in_config(settings, engine=True)
    made = build_catalog(check_config(document, "built-in"), "built-in", secret=lambda name: f"secret of {name}")
    assert [(model.name, model.tier) for model in made.models] == [("smollm2", "economy"), ("gpt-4o", "premium")]
    assert made.models[1].base_url == "http://127.0.0.1:9/v1"
    assert "sk-very-secret" not in str(document)
