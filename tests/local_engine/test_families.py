"""Every family's logits equal transformers' in float32: from safetensors and from GGUF, at once and through the cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from local_engine.config import EngineConfig
from local_engine.engine import Engine, load_engine
from local_engine.layers.attention_reference import PlainAttention
from tests.local_engine.families import MODELS, family_reference, write_family
from tests.local_engine.paged import paged_logits

TOKENS = 110  # several windows of 24, and more than the 64 of LongRoPE's first context
KINDS = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("families"))


class Models:
    """Directories, engines and transformers' logits of the families, made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cache  # noqa: B019  (lives as long as the module's tests)
    def directory(self, name: str) -> Path:
        return write_family(self._folder / name, name)

    @cache  # noqa: B019
    def engine(self, name: str) -> Engine:
        return load_engine(self.directory(name), EngineConfig(dtype="float32"))

    @cache  # noqa: B019
    def expected(self, name: str) -> list[Tensor]:
        with torch.inference_mode():
            reference = family_reference(self.directory(name))
            return [reference(torch.tensor([tokens])).logits[0] for tokens in prompts()]


def prompts() -> list[list[int]]:
    return [[(index * factor + 5) % 400 for index in range(TOKENS)] for factor in (31, 47, 89)]


def plain_logits(engine: Engine, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        return engine.runner.decoder(torch.tensor(tokens), torch.arange(len(tokens)), PlainAttention(), None)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_transformers(model: Models, name: str) -> None:
    assert_equal(plain_logits(model.engine(name), prompts()[0]), model.expected(name)[0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("together", [False, True], ids=["blocks in a row", "blocks apart"])
def test_prefill_and_decode_through_the_block_pool_equal_transformers(model: Models, name: str, together: bool) -> None:
    steps = [1] * 30 + [40, 5, *[1] * (TOKENS - 75)]  # decode in and beyond the window, prefill, a verify step of 5
    found = paged_logits(model.engine(name).runner.decoder, prompts(), steps, together=together)
    for logits, expected in zip(found, model.expected(name), strict=True):
        assert_equal(logits, expected)
