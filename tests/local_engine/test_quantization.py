"""Quantised matrices and cache: round trips, bounds of their errors, and models that still say nearly the same."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from local_engine.config import EngineConfig, ModelConfig, Quantization
from local_engine.errors import CannotQuantize
from local_engine.kv_cache import KVPool
from local_engine.layers.attention_reference import attend_reference
from local_engine.layers.paged_attention import PagedAttention, make_span
from local_engine.loading import load_engine
from local_engine.models.decoder import Decoder
from local_engine.models.gguf_file import GgufFile
from local_engine.models.load import load_decoder
from local_engine.models.weights import GgufWeights, SafetensorsWeights
from local_engine.quantization.fp8 import Fp8Linear
from local_engine.quantization.gguf_blocks import int4_from_gguf
from local_engine.quantization.int4 import GROUP, Int4Linear, pack, quantize_groups
from local_engine.quantization.int8 import Int8Linear, quantize_rows
from local_engine.quantization.kv import make_pool, token_bytes
from local_engine.request import SamplingParams
from tests.local_engine.tiny_models import write_gguf, write_hub_directory

CPU = torch.device("cpu")
Q = gguf.GGMLQuantizationType


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (50, 96)])
def test_int8_weights_are_off_by_half_a_step_at_most(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape)
    module = Int8Linear.from_weight(weight)
    step = weight.abs().amax(dim=1) / 127
    assert ((module.dequantize() - weight).abs().amax(dim=1) <= 0.505 * step).all()
    assert torch.equal(module.scale, module.scale.bfloat16().float()), "a scale must survive bfloat16"


def test_int4_scales_are_fitted_so_that_the_squared_error_is_less_than_that_of_the_range() -> None:
    weight = torch.randn(40, 4 * GROUP)
    grouped = weight.view(40, 4, GROUP)
    low, high = grouped.aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = ((grouped - low) / step).round() * step + low
    error = (Int4Linear.from_weight(weight).dequantize() - weight).square().sum()
    assert error < 0.9 * (plain - grouped).square().sum()


def test_what_4_bits_hold_comes_back_exactly() -> None:
    values = torch.randint(0, 16, (20, 3, GROUP), dtype=torch.uint8)
    values[..., 0], values[..., 1] = 0, 15
    scale, minimum = torch.rand(20, 3).half() + 0.01, torch.randn(20, 3).half()
    weight = pack(values, scale, minimum).dequantize()
    assert torch.equal(quantize_groups(weight).dequantize(), weight)


def test_int4_weights_are_off_by_a_step_at_most() -> None:
    weight = torch.randn(10, 3 * GROUP)
    low, high = weight.view(10, 3, GROUP).aminmax(dim=-1)
    step = ((high - low) / 15)[..., None].expand(-1, -1, GROUP).reshape(10, -1)
    error = (Int4Linear.from_weight(weight).dequantize() - weight).abs()
    assert (error <= step).all()


def test_fp8_weights_are_off_by_a_sixteenth_at_most() -> None:
    weight = torch.randn(50, 96)
    module = Fp8Linear.from_weight(weight)
    largest = weight.abs().amax(dim=1, keepdim=True)
    assert ((module.dequantize() - weight).abs() <= weight.abs() / 16 * 1.001 + largest * 2.0**-18).all()


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear, Fp8Linear])
@pytest.mark.parametrize("value", [0.0, 3.5, -1e-30])
def test_constant_weights_come_back(kind: type[Int8Linear | Int4Linear | Fp8Linear], value: float) -> None:
    weight = torch.full((4, 2 * GROUP), value)
    torch.testing.assert_close(kind.from_weight(weight).dequantize(), weight, rtol=4e-3, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "tokens"), [(50, 1), (48, 1), (48, 5), (50, 16), (48, 32), (48, 33), (50, 40)])
@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear, Fp8Linear])
def test_a_product_is_that_of_the_unpacked_weights(
    kind: type[Int8Linear | Int4Linear | Fp8Linear], rows: int, tokens: int, dtype: torch.dtype
) -> None:
    module = kind.from_weight(torch.randn(rows, 96))
    x = torch.randn(tokens, 96).to(dtype)
    got, expected = module(x), x.float() @ module.dequantize().T
    assert got.dtype == dtype
    assert got.shape == (tokens, rows)
    error = (got.float() - expected).norm() / expected.norm()
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 4, 16])
@pytest.mark.parametrize("columns", [66, 72, 100])
def test_an_int8_product_is_right_whatever_the_number_of_columns(columns: int, tokens: int, dtype: torch.dtype) -> None:
    module = Int8Linear.from_weight(torch.randn(40, columns))
    x = torch.randn(tokens, columns).to(dtype)
    expected = x.float() @ module.dequantize().T
    assert (module(x).float() - expected).norm() < 1e-2 * expected.norm()


def test_int4_refuses_columns_that_groups_do_not_fill() -> None:
    with pytest.raises(CannotQuantize, match=r"80 columns.*use int8"):
        Int4Linear.from_weight(torch.randn(4, 80))


def test_int4_refuses_weights_that_float16_cannot_hold() -> None:
    with pytest.raises(CannotQuantize, match="65504"):
        quantize_groups(torch.randn(4, GROUP) * 1e6)


@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1])
def test_4_bit_blocks_of_a_file_are_kept_exactly(kind: Q) -> None:
    stored = gguf.quants.quantize(np.random.default_rng(3).normal(size=(6, 128)).astype(np.float32), kind)
    rows = int4_from_gguf(torch.from_numpy(stored), kind)
    assert rows is not None
    assert rows.shape == (6, 128)
    assert np.array_equal(rows.dequantize().numpy(), gguf.quants.dequantize(stored, kind))


def test_q4_k_blocks_are_kept_but_for_the_rounding_of_their_scales() -> None:
    random = np.random.default_rng(4)
    stored = random.integers(0, 256, size=(5, 3 * 144), dtype=np.uint8)
    halves = random.uniform(0.001, 0.1, size=(5, 3, 2)).astype(np.float16)  # random bytes would be NaN now and then
    stored.reshape(5, 3, 144)[..., :4] = halves.view(np.uint8).reshape(5, 3, 4)
    rows = int4_from_gguf(torch.from_numpy(stored), Q.Q4_K)
    assert rows is not None
    np.testing.assert_allclose(rows.dequantize().numpy(), gguf.quants.dequantize(stored, Q.Q4_K), rtol=1e-3, atol=2e-2)


def test_other_blocks_are_not_taken_for_4_bit_ones() -> None:
    stored = gguf.quants.quantize(np.ones((2, 64), dtype=np.float32), Q.Q8_0)
    assert int4_from_gguf(torch.from_numpy(stored), Q.Q8_0) is None


def test_a_q4_1_model_loads_as_int4_without_any_loss(tiny_directory: Path, tmp_path: Path) -> None:
    source = GgufWeights(GgufFile(write_gguf(tiny_directory, tmp_path / "tiny.gguf", Q.Q4_1)))
    plain = _decoder(source, "none")
    quantized = _decoder(source, "int4")
    for one, other in zip(plain.layers, quantized.layers, strict=True):
        for name in ("qkv", "attention_out", "gate_up", "down"):
            matrix = getattr(other, name)
            assert isinstance(matrix, Int4Linear)
            assert torch.equal(matrix.dequantize(), getattr(one, name).weight), name


@pytest.mark.parametrize(("quantize", "least"), [("int8", 0.998), ("fp8", 0.98), ("int4", 0.9)])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_a_quantised_model_are_near_those_of_floats(
    quantize: Quantization, least: float, tied: bool, tmp_path: Path
) -> None:
    source = SafetensorsWeights(write_hub_directory(tmp_path / "model", seed=3, tie_word_embeddings=tied))
    expected, got = (_logits(_decoder(source, each)) for each in ("none", quantize))
    assert cosine_similarity(got, expected, dim=-1).mean() > least


def test_rows_of_joined_matrices_are_quantised_each_by_itself(tiny_directory: Path) -> None:
    source = SafetensorsWeights(tiny_directory)
    plain, quantized = _decoder(source, "none"), _decoder(source, "int8")
    weight, scale = quantize_rows(plain.layers[1].qkv.weight)
    assert torch.equal(quantized.layers[1].qkv.weight, weight)
    assert torch.equal(quantized.layers[1].qkv.scale, scale)


def test_a_model_with_odd_columns_is_refused_as_int4_and_served_as_int8(tmp_path: Path) -> None:
    directory = write_hub_directory(tmp_path / "model", seed=5, intermediate_size=90)
    config = {"dtype": "float32", "max_context": 64}
    with pytest.raises(CannotQuantize, match="90 columns"):
        load_engine(directory, EngineConfig(quantize="int4", **config))
    engine = load_engine(directory, EngineConfig(quantize="int8", **config))
    assert len(engine.generate([1, 2, 3], SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)).tokens) == 4


CONFIG = ModelConfig(
    architecture="llama", vocab_size=16, hidden_size=64, intermediate_size=64, layers=2, heads=6, kv_heads=2,
    head_dim=16, max_positions=64, rope_theta=1e4, norm_eps=1e-5, tied_embeddings=True,
)  # fmt: skip


@pytest.mark.parametrize(("kv_dtype", "bound"), [("int8", 0.02), ("fp8", 0.08)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_attention_over_a_quantised_cache_is_near_the_reference(kv_dtype: str, bound: float, contiguous: bool) -> None:
    pool = make_pool(CONFIG, 8, 4, kv_dtype, torch.float32, CPU)
    table = [2, 3, 4, 5] if contiguous else [6, 0, 5, 2]
    slots = torch.tensor([block * 4 + at for block in table for at in range(4)])[:14]
    queries, keys, values = torch.randn(14, 6, 16), torch.randn(14, 2, 16) * 3, torch.randn(14, 2, 16)
    span = make_span(0, 14, 14, table, contiguous, 4, CPU)
    got = PagedAttention(pool, slots, [span]).attend(1, queries, keys, values)
    expected = attend_reference(queries, keys.transpose(0, 1), values.transpose(0, 1))
    assert (got - expected).norm() / expected.norm() < bound


def test_a_quantised_cache_gives_the_same_whether_read_in_a_row_or_gathered() -> None:
    pool = make_pool(CONFIG, 4, 4, "int8", torch.float32, CPU)
    keys, values = torch.randn(8, 2, 16), torch.randn(8, 2, 16)
    pool.write(0, torch.arange(4, 12), keys, values)
    in_a_row, gathered = pool.view(0, 4, 7), pool.gather(0, torch.tensor([1, 2]), 7)
    for one, other in zip(in_a_row, gathered, strict=True):
        assert torch.equal(one, other)
    together, _ = pool.gather_rows(0, torch.tensor([1, 2, 2, 1]), 2)
    assert torch.equal(together[1, :, 4:], together[0, :, :4])


def test_the_size_of_a_quantised_cache_is_planned_as_it_is() -> None:
    for kv_dtype, dtype in (("auto", torch.bfloat16), ("int8", torch.bfloat16), ("fp8", torch.float32)):
        pool = make_pool(CONFIG, 8, 4, kv_dtype, dtype, CPU)
        assert pool.nbytes == 8 * 4 * token_bytes(CONFIG, kv_dtype, dtype)
    assert isinstance(pool, KVPool)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_prefix_sharing_works_over_a_quantised_cache(kv_dtype: str, tiny_engine) -> None:  # type: ignore[no-untyped-def]
    params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    prompt = [(index * 37) % 300 for index in range(40)]
    engine = tiny_engine(kv_dtype=kv_dtype)
    first = engine.generate(prompt, params).tokens
    again = engine.new_request(prompt, params)
    engine.add(again)
    while engine.busy:
        engine.step()
    assert again.cached_tokens == 32
    assert again.answer == first
    engine.check_integrity()


def _decoder(source: GgufWeights | SafetensorsWeights, quantize: Quantization) -> Decoder:
    return load_decoder(source, positions=64, dtype=torch.float32, device=CPU, quantize=quantize)


def _logits(decoder: Decoder) -> torch.Tensor:
    pool = KVPool(decoder.config, 3, 16, torch.float32, CPU)
    tokens = torch.arange(5, 45)
    span = make_span(0, 40, 40, range(3), True, 16, CPU)
    with torch.inference_mode():
        return decoder(tokens, torch.arange(40), PagedAttention(pool, torch.arange(40), [span]), None)
