"""A model that does not fit the memory is refused before it is read, with the numbers and the quantisation that would fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from local_engine.config import EngineConfig, ModelConfig, Quantization
from local_engine.errors import ModelTooLarge, NoSuchDevice
from local_engine.loading import load_engine
from local_engine.models.size import check_fits, weight_bytes

LLAMA_8B = ModelConfig(
    architecture="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336, layers=32, heads=32, kv_heads=8,
    head_dim=128, max_positions=8192, rope_theta=5e5, norm_eps=1e-5, tied_embeddings=False,
)  # fmt: skip
QWEN3_30B = replace(
    LLAMA_8B, vocab_size=151936, hidden_size=2048, intermediate_size=6144, layers=48, kv_heads=4, experts=128,
    experts_per_token=8, expert_size=768, qk_norm=True,
)  # fmt: skip
GIB = 1 << 30


def test_weights_are_counted_as_published() -> None:
    assert weight_bytes(LLAMA_8B, torch.bfloat16, "none") == 2 * 8_030_261_248  # the model's card
    assert weight_bytes(LLAMA_8B, torch.float32, "none") == 4 * 8_030_261_248


def test_tied_embeddings_are_counted_once() -> None:
    tied = replace(LLAMA_8B, tied_embeddings=True)
    shared = 2 * LLAMA_8B.vocab_size * LLAMA_8B.hidden_size
    assert weight_bytes(tied, torch.bfloat16, "none") == weight_bytes(LLAMA_8B, torch.bfloat16, "none") - shared


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_what_is_counted_is_what_loading_takes(tiny_directory: Path, quantize: Quantization) -> None:
    engine = load_engine(tiny_directory, EngineConfig(dtype="float32", quantize=quantize))
    decoder = engine.runner.decoder
    taken = {tensor.data_ptr(): tensor.nbytes for tensor in (*decoder.parameters(), *decoder.buffers())}
    assert weight_bytes(engine.model_config, torch.float32, quantize) == sum(taken.values())


@pytest.mark.parametrize(
    ("quantize", "free", "says"),
    [
        ("none", 12, r"16\.9 GiB for its weights in bfloat16, 12\.0 GiB .*fit with --quantize int8 \(.*or --quantize int4"),
        ("none", 9, r"9\.0 GiB .*fit with --quantize int4 \("),
        ("int8", 9, r"for its weights in int8, .*fit with --quantize int4 \("),
        ("none", 2, r"no quantisation would fit either \(int8 .* GiB, int4 .* GiB\).*smaller model"),
    ],
    ids=str,
)  # fmt: skip
def test_a_model_larger_than_memory_is_refused_with_what_would_fit(
    quantize: Quantization, free: int, says: str
) -> None:
    with pytest.raises(ModelTooLarge, match=says):
        check_fits(LLAMA_8B, torch.bfloat16, quantize, free * GIB)


def test_a_model_that_fits_says_what_it_will_take() -> None:
    assert 15 * GIB < check_fits(LLAMA_8B, torch.bfloat16, "none", 20 * GIB) < 18 * GIB


def test_a_layer_of_experts_is_converted_at_once() -> None:
    weights = weight_bytes(QWEN3_30B, torch.bfloat16, "none")
    assert weights == 2 * 30_532_122_624  # as published: 30.5 billion
    assert check_fits(QWEN3_30B, torch.bfloat16, "none", 80 * GIB) >= weights + 4 * 128 * 768 * 2048


def test_a_draft_model_too_large_is_refused_before_its_weights_are_read(tiny_directory: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_directory, tmp_path / "model"))
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, "intermediate_size": 1 << 24, "hidden_size": 1 << 20}))
    with pytest.raises(ModelTooLarge, match="no quantisation would fit"):
        load_engine(tiny_directory, EngineConfig(dtype="float32", speculate="draft", draft_model=directory))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(tiny_directory: Path) -> None:
    with pytest.raises(NoSuchDevice, match=r"device is 'cuda', but torch .*, or take --device auto or cpu"):
        load_engine(tiny_directory, EngineConfig(device="cuda"))


def test_a_model_too_large_is_refused_before_its_weights_are_read(tiny_directory: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_directory, tmp_path / "model"))
    values = json.loads((directory / "config.json").read_text())
    huge = {**values, "hidden_size": 1 << 20, "vocab_size": 1 << 24}
    (directory / "config.json").write_text(json.dumps(huge))
    with pytest.raises(ModelTooLarge, match="no quantisation would fit"):
        load_engine(directory, EngineConfig())
