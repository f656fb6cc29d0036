"""Every family's logits equal transformers' in float32: from safetensors and from GGUF, at once and through the cache."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file
from torch import Tensor

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.layers.attention_reference import PlainAttention
from local_engine.loading import load_engine
from local_engine.models.registry import FAMILIES
from local_engine.request import SamplingParams
from tests.local_engine.families import MODELS, family_reference, read_config, write_family
from tests.local_engine.gguf_models import ARCHITECTURES, quantized, write_gguf
from tests.local_engine.paged import paged_logits

TOKENS = 110  # several windows of 24, and more than the 64 of LongRoPE's first context
STORED = {
    "llama3": "Q4_0", "mistral": "Q8_0", "qwen2.5": "Q4_1", "qwen3": "F16", "qwen3 moe": "Q5_0", "gemma2": "BF16",
    "gemma3": "Q8_0", "phi3": "Q4_0",
}  # fmt: skip
NOT_IN_GGUF = {"qwen2 windowed", "qwen3 moe, some layers dense"}  # its metadata has no words for them


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
        return [reference_logits(self.directory(name), tokens) for tokens in prompts()]


def prompts() -> list[list[int]]:
    return [[(index * factor + 5) % 400 for index in range(TOKENS)] for factor in (31, 47, 89)]


def reference_logits(directory: Path, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        return family_reference(directory)(torch.tensor([tokens])).logits[0]


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


@pytest.mark.parametrize("name", ["mistral", "qwen3 moe", "gemma2", "gemma3", "phi3 long"])
def test_the_engine_answers_as_transformers_does(model: Models, name: str) -> None:
    prompt = prompts()[0][:40]
    answer = model.engine(name).generate(prompt, SamplingParams(max_tokens=30, temperature=0, ignore_eos=True))
    logits = reference_logits(model.directory(name), prompt + answer.tokens)
    assert answer.tokens == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_logits_are_near_those_of_float32(model: Models, name: str) -> None:
    engine = load_engine(model.directory(name), EngineConfig(dtype="bfloat16", max_context=512))
    decoder = engine.runner.decoder
    found = paged_logits(decoder, prompts()[:2], [50, *[1] * 4, 56], together=True)
    near = torch.cosine_similarity(torch.cat(found), torch.cat(model.expected(name)[:2]), dim=-1)
    assert near.median() > 0.995  # not the mean: a mixture may choose another expert where two are nearly alike


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_IN_GGUF])
def test_a_gguf_file_gives_the_logits_of_the_safetensors_it_was_made_from(
    model: Models, tmp_path: Path, name: str
) -> None:
    engine = load_engine(write_gguf(model.directory(name), tmp_path / "x.gguf"), EngineConfig(dtype="float32"))
    assert_equal(plain_logits(engine, prompts()[0]), model.expected(name)[0])
    assert engine.model_config.windows == model.engine(name).model_config.windows


@pytest.mark.parametrize(("name", "kind"), STORED.items())
def test_quantised_gguf_gives_transformers_logits_on_the_dequantised_values(
    model: Models, tmp_path: Path, name: str, kind: str
) -> None:
    path = write_gguf(model.directory(name), tmp_path / "x.gguf", GGMLQuantizationType[kind])
    expected = dequantized_logits(model.directory(name), GGMLQuantizationType[kind])
    assert_equal(plain_logits(load_engine(path, EngineConfig(dtype="float32")), prompts()[0]), expected)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_give_transformers_logits_on_the_dequantised_values(tmp_path: Path, kind: str) -> None:
    directory = write_family(tmp_path / "model", "qwen2.5", hidden_size=256, intermediate_size=256)
    path = write_gguf(directory, tmp_path / "x.gguf", GGMLQuantizationType[kind])
    expected = dequantized_logits(directory, GGMLQuantizationType[kind])
    assert_equal(plain_logits(load_engine(path, EngineConfig(dtype="float32")), prompts()[0]), expected)


def dequantized_logits(directory: Path, kind: GGMLQuantizationType) -> Tensor:
    """transformers' logits, every matrix but the experts' routers rounded as `kind` rounds."""
    reference = family_reference(directory)
    with torch.inference_mode():
        for name, values in reference.named_parameters():
            if values.dim() > 1 and not name.endswith("mlp.gate.weight"):
                values.copy_(torch.tensor(gguf.quants.dequantize(quantized(values.numpy(), kind), kind)))
        return reference(torch.tensor([prompts()[0]])).logits[0]


def test_longrope_takes_the_short_factors_where_the_whole_context_fits_the_first_one(model: Models) -> None:
    directory = model.directory("phi3 long")
    engine = load_engine(directory, EngineConfig(dtype="float32", max_context=64))
    tokens = prompts()[0][:60]
    expected = reference_logits(directory, tokens)
    assert_equal(plain_logits(engine, tokens), expected)
    long = load_engine(directory, EngineConfig(dtype="float32", max_context=65))
    assert not torch.allclose(plain_logits(long, tokens), expected, atol=1e-2)


def test_every_family_of_the_registry_is_tested_here() -> None:
    tested = {options[1].__name__ for options in MODELS.values()}
    known = {name for family in FAMILIES for name in family.classes}
    assert known - tested == {"Gemma3ForConditionalGeneration"}
    assert set(ARCHITECTURES) == tested


def test_gemma_3_is_found_inside_a_checkpoint_that_also_sees(model: Models, tmp_path: Path) -> None:
    directory = model.directory("gemma3")
    text = read_config(directory)
    del text["architectures"]
    for prefix in ("language_model.model.", "model.language_model."):
        copy = tmp_path / prefix
        shutil.copytree(directory, copy)
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
        (copy / "config.json").write_text(json.dumps(config))
        tensors = {prefix + name.removeprefix("model."): x for name, x in load_file(copy / "model.safetensors").items()}
        save_file({**tensors, "vision_tower.x.weight": torch.zeros(2)}, copy / "model.safetensors")
        engine = load_engine(copy, EngineConfig(dtype="float32"))
        assert_equal(plain_logits(engine, prompts()[0]), model.expected("gemma3")[0])
