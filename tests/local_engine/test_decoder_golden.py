"""The decoder's logits equal transformers' in float32, from safetensors and from GGUF, whole or in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor

from local_engine.config import EngineConfig
from local_engine.engine import Engine
from local_engine.layers.attention_reference import PlainAttention
from local_engine.loading import load_engine
from local_engine.models.gguf_file import GgufFile
from tests.local_engine.tiny_models import reference, write_gguf, write_hub_directory

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
ROPES: dict[str, dict[str, Any]] = {
    "theta": {"rope_theta": 500000.0, "rope_type": "default"},
    "linear": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_theta": 10000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


def logits(engine: Engine, tokens: list[int], pieces: list[int]) -> Tensor:
    """Logits of all positions, computed in pieces of the given lengths with the plain attention."""
    decoder, attention = engine.runner.decoder, PlainAttention()
    rows, start = [], 0
    with torch.inference_mode():
        for length in pieces:
            end = start + length
            ids, positions = torch.tensor(tokens[start:end]), torch.arange(start, end)
            rows.append(decoder(ids, positions, attention, None))
            start = end
    return torch.cat(rows)


def reference_logits(directory: Path, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        return reference(directory)(torch.tensor([tokens])).logits[0]


def tokens_for(engine: Engine, count: int) -> list[int]:
    return [(index * 31 + 5) % engine.model_config.vocab_size for index in range(count)]


@pytest.mark.parametrize("pieces", [[300], [1] * 20, [7, 1, 250, 2]])
def test_logits_equal_transformers_however_the_prompt_is_cut(tiny_directory: Path, pieces: list[int]) -> None:
    engine = load_engine(tiny_directory, EngineConfig(dtype="float32"))
    tokens = tokens_for(engine, sum(pieces))
    torch.testing.assert_close(
        logits(engine, tokens, pieces), reference_logits(tiny_directory, tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rope", ROPES)
def test_logits_equal_transformers_with_each_rope_kind(tmp_path: Path, rope: str) -> None:
    directory = write_hub_directory(tmp_path / "model", seed=1, rope_parameters=ROPES[rope])
    engine = load_engine(directory, EngineConfig(dtype="float32"))
    tokens = tokens_for(engine, 200)
    torch.testing.assert_close(logits(engine, tokens, [200]), reference_logits(directory, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"head_dim": 32},
    ],
    ids=str,
)
def test_logits_equal_transformers_for_each_flag(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = write_hub_directory(tmp_path / "model", seed=2, **changes)
    engine = load_engine(directory, EngineConfig(dtype="float32"))
    tokens = tokens_for(engine, 40)
    torch.testing.assert_close(logits(engine, tokens, [40]), reference_logits(directory, tokens), rtol=1e-4, atol=1e-4)


def test_a_gguf_file_gives_the_same_logits_as_the_safetensors_it_was_made_from(
    tiny_directory: Path, tiny_gguf: Path
) -> None:
    from_gguf = load_engine(tiny_gguf, EngineConfig(dtype="float32"))
    tokens = tokens_for(from_gguf, 60)
    torch.testing.assert_close(
        logits(from_gguf, tokens, [60]), reference_logits(tiny_directory, tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_stored_type_reads_as_the_gguf_package_reads_it(tmp_path: Path, kind: str) -> None:
    directory = write_hub_directory(tmp_path / "model", seed=3)
    path = write_gguf(directory, tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind])
    file = GgufFile(path)
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert torch.equal(torch.tensor(file.read(tensor.name)), torch.tensor(expected)), tensor.name


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_read_as_the_gguf_package_reads_them(tmp_path: Path, kind: str) -> None:
    # The package cannot write K-quants; blocks of small random bytes are valid ones (scales are half floats).
    quant = gguf.GGMLQuantizationType[kind]
    _, block_bytes = gguf.GGML_QUANT_SIZES[quant]
    generator = torch.Generator().manual_seed(5)
    raw = torch.randint(0, 60, (4, 2 * block_bytes), generator=generator, dtype=torch.uint8).numpy()
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "llama")
    writer.add_tensor("some.weight", raw, raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(tmp_path / "k.gguf").read("some.weight")
    assert read.shape == (4, 512)
    assert torch.equal(torch.tensor(read), torch.tensor(gguf.quants.dequantize(raw, quant)))
